"""Looked: one picture of a data set with its labels, read once for all checks.

Shape letters: H W pixels, h w of the small copy, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from garnish.data.folder import FolderDataset
from garnish.data.label_counts import LabelCounts, count_labels
from garnish.data.labels.reader import Reader
from garnish.data.picture_labels import PictureLabels
from garnish.data.picture_reading import read_image
from garnish.errors import DataError
from garnish.files.picture_header import Stored
from garnish.files.pictures import open_picture
from garnish.tasks.task import Task

T = TypeVar("T")

#: Longer side of the small copy of a picture, pixels.
SMALL = 160


class Looked:
    """One picture; what checks ask for is made once and kept until all of them have seen it.

    Nothing of it may be modified: the next check sees the same arrays.

    Args:
        dataset: of its split.
        index: its index there.

    Attributes:
        dataset, index: as given.
        split, name: of the picture.
        file: the picture's file; of several that of its first band.
        files: task → label file, of the tasks that it has a label for.
    """

    def __init__(self, dataset: FolderDataset, index: int) -> None:
        self.dataset, self.index = dataset, index
        self.split, self.name = dataset.split, dataset.picture_name(index)
        self.file: Path = dataset.picture_file(index)
        self.files = dataset.label_files(index)
        self._problems: dict[str, str] = {}
        self._decoded: dict[str, Tensor | None] = {}
        self._targets: dict[str, Tensor | None] = {}
        self._counts: dict[str, LabelCounts | None] = {}
        self._made: dict[Hashable, Any] = {}

    @cached_property
    def _picture(self) -> tuple[Tensor | np.ndarray, Stored | None, int] | DataError:
        """What was read: (C, H, W) of other bands or (H, W, 3) uint8, the facts of the file, the EXIF orientation."""
        files, bands = self.dataset.picture_files(self.index), self.dataset.bands
        try:
            if bands.is_rgb and len(files) == 1 and files[0].suffix.lower() not in (".npy", ".npz"):
                pixels, facts = open_picture(files[0])
                return pixels, facts, facts.orientation
            image, orientation = read_image(files, bands)
            return image.as_subclass(Tensor), None, orientation
        except DataError as error:
            return error

    def _read(self) -> tuple[Tensor | np.ndarray, Stored | None, int]:
        if isinstance(self._picture, DataError):
            raise self._picture
        return self._picture

    @property
    def problem(self) -> str | None:
        """Why the picture cannot be read, the line of the error; None: it can."""
        return str(self._picture) if isinstance(self._picture, DataError) else None

    @property
    def facts(self) -> Stored | None:
        """Facts of the picture file's header; None: of other bands than 8-bit RGB. Raises DataError."""
        return self._read()[1]

    @property
    def orientation(self) -> int:
        """EXIF orientation of the picture, 1 where there is none; raises DataError."""
        return self._read()[2]

    @cached_property
    def image(self) -> Tensor:
        """The picture as training sees it: (3, H, W) uint8, or of other bands (C, H, W) float32; raises DataError."""
        read = self._read()[0]
        return torch.from_numpy(read).permute(2, 0, 1) if isinstance(read, np.ndarray) else read

    @cached_property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8, upright; raises DataError.

        Of other bands: red, green and blue where they have these names, else the first band as grey; 0 and 1 of their
        range are black and white, and so is black what has no data.
        """
        read = self._read()[0]
        if isinstance(read, np.ndarray):
            return read
        if read.dtype == torch.uint8:
            return read.permute(1, 2, 0).numpy()
        chosen = [0 if at is None else at for at in self.dataset.bands.rgb]
        chosen = chosen if None not in self.dataset.bands.rgb else [0, 0, 0]
        levels = np.nan_to_num(read[chosen].permute(1, 2, 0).numpy(), nan=0.0)
        shown: np.ndarray = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
        return shown

    @cached_property
    def _shown(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    @cached_property
    def levels(self) -> np.ndarray:
        """(H, W) uint8 luminance (ITU-R BT.601) of :attr:`pixels`; raises DataError."""
        return np.asarray(self._shown.convert("L"))

    @property
    def grey(self) -> np.ndarray:
        """:attr:`levels` as float32, 0 to 255; raises DataError."""
        return self.levels.astype(np.float32)

    @cached_property
    def small(self) -> np.ndarray:
        """(h, w, 3) uint8, the longer side :data:`SMALL` at most, averaged over areas; raises DataError."""
        height, width = self.pixels.shape[:2]
        scale = SMALL / max(height, width, SMALL)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(self._shown.resize(size, Image.Resampling.BOX, reducing_gap=1.0))

    @cached_property
    def labels(self) -> PictureLabels:
        """The labels, read on demand; where the picture cannot be read, their sizes are not compared with it."""
        if isinstance(self._picture, DataError):
            return self.dataset.labels(self.index, None, 1)
        height, width = self.image.shape[-2:]
        return self.dataset.labels(self.index, (height, width), self.orientation)

    def task(self, name: str) -> Task:
        """A task of the set."""
        return self.dataset.tasks[name]

    def reader(self, task: str) -> Reader:
        """The reader of a task's labels, with the options of the description."""
        return self.labels.description.tasks[task].labels

    def stored(self, task: str) -> np.ndarray | None:
        """The numbers of a label file before they are decoded, as :meth:`PictureLabels.stored`; None: it has none.

        None too where it cannot be read.
        """
        if task not in self.files:
            return None
        try:
            return self.labels.stored(task)
        except DataError as error:
            self._problems.setdefault(task, str(error))
            return None

    def decoded(self, task: str) -> Tensor | None:
        """The target of a task even where the task rejects its values; None: it has none, or it cannot be read."""
        if task not in self._decoded:
            try:
                self._decoded[task] = self.labels.target(task) if task in self.files else None
            except DataError as error:
                self._problems[task] = str(error)
                self._decoded[task] = None
        return self._decoded[task]

    def target(self, task: str) -> Tensor | None:
        """The target of a task, as training sees it; None: the picture has no label of it, or not a valid one.

        Shapes and types are those of :class:`garnish.data.dataset.Sample`.
        """
        if task not in self._targets:
            target = self.decoded(task)
            try:
                if target is not None:
                    self.task(task).check_target(target, str(self.files[task]))
            except DataError as error:
                self._problems[task] = str(error)
                target = None
            self._targets[task] = target
        return self._targets[task]

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for all checks that ask with this key, which begins with the module's name."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def counts(self, task: str) -> LabelCounts | None:
        """Pixel counts of a valid label; None as :meth:`target`."""
        if task not in self._counts:
            target = self.target(task)
            self._counts[task] = None if target is None else count_labels(self.task(task), target.as_subclass(Tensor))
        return self._counts[task]

    def problems(self) -> dict[str, str]:
        """Task → why its label cannot be read or is not valid, the line of the error; all labels are read."""
        for task in self.files:
            self.target(task)
        return {task: self._problems[task] for task in self.files if self._targets[task] is None}
