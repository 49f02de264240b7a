"""Reader of edges from the files of annotation tools: outlines of objects.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, final

import numpy as np

from garnish.data.labels.id_borders import id_borders
from garnish.data.labels.shape_file import ShapeFileReader, check_positive
from garnish.targets.target import Target
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task

#: Number of pixels in crowds, which have no outline; 0 is none, others are objects.
_CROWD = -1


@final
@dataclass(frozen=True, kw_only=True)
class ShapeEdgesReader(ShapeFileReader):
    """Edges, two pixels wide, where two objects, or an object and none, meet (``from: boundaries`` means the same).

    Two objects of one class that touch have an edge between them. Within crowds, and next to them, there is no label.

    Attributes:
        positive: classes of the file whose objects have outlines; null: all.
        overlap: "later" or "smaller" objects lie on top where the file states no order; null: the format's own.
    """

    kind: ClassVar[str] = "shape_edges"
    target: ClassVar[type[Target]] = YesOrNo
    source: ClassVar[str | None] = "boundaries"

    positive: tuple[str, ...] | None = None
    overlap: Literal["later", "smaller"] | None = None

    def check_file(self, file: Path, task: Task, pictures: Sequence[str]) -> None:
        """Raise DataError if the file does not have a class of ``positive``, or as the base class."""
        super().check_file(file, task, pictures)
        check_positive(self.positive, self._opened(file))

    def load(self, file: Path, picture: str, size: tuple[int, int] | None) -> tuple[np.ndarray, int]:
        """(H, W) int32 number of the topmost object; 0: none, -1: a crowd."""
        shapes, size = self._objects(file, picture, size)
        wanted = [s for s in shapes if self.positive is None or s.label in self.positive]
        layers = partial(self._layers, file=file, picture=picture, size=size)
        numbers = np.zeros(size, np.int32)
        below = self._from_below(wanted, self.overlap or self._opened(file).held.overlap, layers)
        for number, (shape, mask, (top, left)) in enumerate(below, 1):
            code = _CROWD if shape.crowd and self.crowd == "ignore" else number
            numbers[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = code
        return numbers, 1

    def decode(self, raw: np.ndarray, file: Path, task: Task) -> np.ndarray:
        """(1, H, W) float32 in {0, 1, 255 = no label}."""
        return id_borders(raw, raw == _CROWD)
