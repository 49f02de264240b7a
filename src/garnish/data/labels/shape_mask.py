"""Reader of yes-or-no maps from the files of annotation tools: where an object lies.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.data.labels.shape_file import ShapeFileReader, check_positive
from garnish.errors import OptionError
from garnish.targets.target import IGNORE, Target
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.edges import Edges
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class ShapeMaskReader(ShapeFileReader):
    """Foreground where an object lies, whatever lies above it.

    Attributes:
        positive: classes of the file whose objects are foreground; null: all.
    """

    kind: ClassVar[str] = "shape_mask"
    target: ClassVar[type[Target]] = YesOrNo

    positive: tuple[str, ...] | None = None

    def check_task(self, task: Task) -> None:
        """Raise OptionError for a task of edges, which areas are not."""
        if isinstance(task, Edges):
            raise OptionError("labels: areas of objects are no edges; write `from: boundaries` for their outlines")

    def check_file(self, file: Path, task: Task, pictures: Sequence[str]) -> None:
        """Raise DataError if the file does not have a class of ``positive``, or as the base class."""
        super().check_file(file, task, pictures)
        check_positive(self.positive, self._opened(file))

    def load(self, file: Path, picture: str, size: tuple[int, int] | None) -> tuple[np.ndarray, int]:
        """(H, W) uint8: 1 on an object, 255 in a crowd that has no label, else 0."""
        shapes, size = self._objects(file, picture, size)
        wanted = [s for s in shapes if self.positive is None or s.label in self.positive]
        found, unknown = np.zeros(size, bool), np.zeros(size, bool)
        for shape, mask, (top, left) in self._layers(wanted, file, picture, size):
            canvas = unknown if shape.crowd and self.crowd == "ignore" else found
            canvas[top : top + mask.shape[0], left : left + mask.shape[1]] |= mask
        return np.where(found, 1, np.where(unknown, IGNORE, 0)).astype(np.uint8), 1

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(1, H, W) float32 in {0, 1, 255 = no label}."""
        return raw.astype(np.float32)[None]
