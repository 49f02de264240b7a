"""``PictureWindows``: a picture of a data set whose files, and those of its labels, are read by windows.

Shape letters: H W pixels of the picture, h w of a window.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from garnish.data.dataset import ByWindows, Sample
from garnish.data.labels.labelled import Labelled
from garnish.data.labels.reader import Reader, decode
from garnish.data.picture_reading import read_image
from garnish.errors import DataError, MissingExtraError
from garnish.files.band_names import RED_GREEN_BLUE
from garnish.files.regular import open_regular
from garnish.pictures.bands import Bands
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import RasterFacts, Window

#: First bytes of the files of which a window can be read without the rest.
_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x93NUM")
#: Numbers of label files that mean the same by windows as in one piece.
_LABELS = ("bool", "uint8", "uint16", "int16", "int32", "float32")


@final
@dataclass(frozen=True)
class PictureWindows(ByWindows):
    """Files of one picture, all of which are read by windows; :func:`picture_windows` finds whether they are.

    Attributes:
        pictures: its files: one, or one a band.
        bands: of the data set.
        files: task → its label file.
        known: task → how that is read.
        size: (H, W).
    """

    pictures: tuple[Path, ...]
    bands: Bands
    files: Mapping[str, Path]
    known: Mapping[str, Labelled]
    size: tuple[int, int]

    def read(self, window: Window) -> Sample:
        """The picture's window with its labels.

        Raises:
            DataError: damaged files, values that a task rejects.
        """
        image, _ = read_image(self.pictures, self.bands, window)
        return Sample(image=image, targets=self.labels(window), name=str(self.pictures[0]))

    def labels(self, window: Window) -> dict[str, Tensor]:
        """The labels of a window alone, by task; raises as :meth:`read`."""
        return {task: self._target(task, window) for task in self.files}

    def of_tasks(self, names: Collection[str]) -> PictureWindows:
        """The same with the labels of some tasks."""
        return replace(self, files={task: file for task, file in self.files.items() if task in names})

    def _target(self, task: str, window: Window | None) -> Tensor:
        entry, file = self.known[task], self.files[task]
        with open_raster(file, 1) as raster:
            raw = raster.read(window)[..., 0]
        target = entry.task.target.of(decode(np.ascontiguousarray(raw), entry.labels, file, entry.task))
        try:
            entry.task.check_target(target, str(file))
        except DataError:
            if window is None:
                raise
            self._target(task, None)  # a part may be what a whole must not be: all of it out of range
        return target


def picture_windows(
    pictures: Sequence[Path], bands: Bands, labels: Mapping[str, Path], known: Mapping[str, Labelled]
) -> PictureWindows | None:
    """A picture that is read by windows; None: a file of it must be read as a whole.

    TIFF of several tiles or strips, and ``.npy``; labels of one band of a kind whose pixels mean something each for
    itself (``Reader.by_pixel``). What is damaged is left to the reader of the whole, which says so.

    Args:
        pictures: its files: one, or one a band.
        bands: of the data set.
        labels: task → its label file.
        known: task → how that is read.
    """
    readers = [known[task].labels for task in labels]
    if not all(reader.by_pixel and type(reader).load is Reader.load for reader in readers):
        return None
    if any(reader.orientation == "stored" for reader in readers):
        return None
    try:
        facts = [_facts(file, len(bands.names) if len(pictures) == 1 else 1) for file in pictures]
        told = [_facts(file, 1) for file in labels.values()]
    except (DataError, MissingExtraError, OSError):
        return None
    sizes = {one.size for one in (*facts, *told) if one is not None}
    if None in facts or None in told or len(sizes) != 1:
        return None
    if bands.is_rgb and not all(_is_plain(one) for one in facts if one is not None):
        return None
    if not all(_is_label(one) for one in told if one is not None):
        return None
    return PictureWindows(tuple(pictures), bands, labels, known, sizes.pop())


def _facts(file: Path, bands: int) -> RasterFacts | None:
    """What the header of a file says; None: it is not read by windows."""
    with open_regular(file, 2**63 - 1) as stream:
        if not stream.read(5).startswith(_HEADS):
            return None
    with open_raster(file, bands) as raster:
        return raster.facts if raster.facts.windows else None


def _is_plain(facts: RasterFacts) -> bool:
    """Whether a file is 8-bit RGB and nothing else, which is the same numbers however it is read."""
    return (
        facts.dtype == "uint8"
        and len(facts.bands) == 3
        and all(own in (name, None) for own, name in zip(facts.bands, RED_GREEN_BLUE, strict=True))
    )


def _is_label(facts: RasterFacts) -> bool:
    return len(facts.bands) == 1 and facts.dtype in _LABELS and "lossy" not in facts.notes
