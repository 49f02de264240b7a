"""The labels of one picture of a data set on disk: opening, decoding and turning them, and checking their size.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from garnish.data.description import Description
from garnish.data.labels.reader import Reader, decode
from garnish.errors import DataError, shown
from garnish.files.orientation import UNDONE_BY, swaps_sides


@final
class PictureLabels:
    """The labels of one picture, read on demand; a file that several tasks open in the same way is opened once.

    Args:
        description: of the data set.
        name: of the picture, as filled into templates.
        picture: its file.
        files: task → label file.
        size: (H, W) of the picture; None if it cannot be read.
        orientation: EXIF orientation of the picture.
    """

    def __init__(
        self,
        description: Description,
        name: str,
        picture: Path,
        files: Mapping[str, Path],
        size: tuple[int, int] | None,
        orientation: int,
    ) -> None:
        self.description, self.name, self.picture, self.files = description, name, picture, files
        self.size, self.orientation = size, orientation
        self._opened: dict[tuple[object, Path], tuple[np.ndarray, int]] = {}

    def target(self, task: str) -> Tensor:
        """The target of a task, in the tensor type of its kind, not yet checked by the task.

        Raises:
            DataError: a file that cannot be read, values that the options do not cover, a size that differs from the
                picture's.
        """
        entry, file = self.description.tasks[task], self.files[task]
        raw, own = self._open(task)
        values = decode(raw, entry.labels, file, entry.task)
        stored = self.orientation if entry.labels.orientation == "stored" else 1
        target = entry.task.target.of(values, stored)
        self._check_size(task, own, (target.shape[-2], target.shape[-1]))
        return target

    def stored(self, task: str) -> np.ndarray:
        """What the reader of a task's labels loads, before it is decoded: not to be modified.

        For pictures and ``.npy`` files (H, W) or (H, W, channels of the file), upright unless ``orientation: stored``.

        Raises:
            DataError: a file that cannot be read.
        """
        return self._open(task)[0]

    def own_orientation(self, task: str) -> int:
        """EXIF orientation of a label file, 1 if its format has none.

        Raises:
            DataError: a file that cannot be read.
        """
        return self._open(task)[1]

    def _open(self, task: str) -> tuple[np.ndarray, int]:
        layout, reader, file = self.description.layout, self.description.tasks[task].labels, self.files[task]
        alike = layout is None and type(reader).load is Reader.load
        key = ((reader.orientation == "stored", reader.palette_colours) if alike else task, file)
        if key not in self._opened:
            size = self.size
            if size is not None and reader.orientation == "stored" and swaps_sides(self.orientation):
                size = (size[1], size[0])  # labels match the pixels as they are stored
            word = self.description.word(task, self.name, self.picture)
            opened = reader.load(file, word, size) if layout is None else (layout.read(task, file), 1)
            if not isinstance(opened, tuple) or len(opened) != 2 or opened[1] not in UNDONE_BY:
                raise DataError(
                    f"{file}: {type(reader).__name__}.load gave {shown(opened)}; correct the reader: an array, and an"
                    " orientation from 1 to 8"
                )
            self._opened[key] = opened
        return self._opened[key]

    def _check_size(self, task: str, own: int, size: tuple[int, int]) -> None:
        """Raise DataError unless a label has the picture's size; ``own`` is the orientation of its file."""
        height, width = size
        if self.size is None or self.size == size:
            return
        remedy = "resize the label (nearest neighbour for ids) or replace it"
        if self.size == (width, height):
            remedy = "one of them is turned: turn the label, or replace it"
            # the other value of `orientation` changes the size only if exactly one of the two files is on its side
            if self.description.layout is None and swaps_sides(self.orientation) != swaps_sides(own):
                is_stored = self.description.tasks[task].labels.orientation == "stored"
                remedy = (
                    f"one of them is turned: write `orientation: {'upright' if is_stored else 'stored'}`"
                    f" (tasks.{task}.orientation) if the labels fit the picture "
                    + ("as it is shown" if is_stored else "without its EXIF orientation")
                    + ", or turn the label"
                )
        raise DataError(
            f"{self.files[task]}: {width}x{height}, but its picture {self.picture} is {self.size[1]}x{self.size[0]};"
            f" {remedy}"
        )
