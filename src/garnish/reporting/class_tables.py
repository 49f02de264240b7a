"""What a confusion matrix of classes tells: the matrix itself, and a table of its classes.

Shape letters: C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from garnish.reporting.confusion_picture import confusion_picture
from garnish.reporting.detail import Cell, Detail

#: Classes of which so few are listed in a terminal; of more, those with the lowest IoU.
MOST_TOLD = 12


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion(Detail):
    """The confusion matrix.

    Attributes:
        classes: C names.
        counts: (C, C) int64 pixels, rows by label, columns by prediction.
    """

    name: str = "confusion"
    title: str = "Confusion of classes"
    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    def rows(self) -> list[list[Cell]]:
        """Pixels: a row a label, a column a prediction."""
        rows: list[list[Cell]] = [["label \\ prediction", *self.classes]]
        return rows + [
            [name, *map(int, counts)] for name, counts in zip(self.classes, self.counts.tolist(), strict=True)
        ]

    def picture(self) -> Image.Image:
        """The matrix in shares of each row, as :func:`confusion_picture` draws it."""
        return confusion_picture(self.classes, self.counts)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ClassTable(Detail):
    """IoU, precision, recall and pixels of each class.

    Attributes:
        classes: C names.
        counts: as of :class:`Confusion`.
    """

    name: str = "classes"
    title: str = "Classes"
    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @cached_property
    def _rows(self) -> list[list[Cell]]:
        both, true, predicted = self.counts.diagonal(), self.counts.sum(1), self.counts.sum(0)
        numbers = zip(both.tolist(), true.tolist(), predicted.tolist(), strict=True)
        return [
            [name, _ratio(b, t + p - b), _ratio(b, p), _ratio(b, t), t]
            for name, (b, t, p) in zip(self.classes, numbers, strict=True)
        ]

    def rows(self) -> list[list[Cell]]:
        """A row a class; IoU, precision and recall in [0, 1], pixels are those with the label."""
        return [["class", "IoU", "precision", "recall", "pixels"], *self._rows]

    def brief(self) -> list[list[Cell]]:
        """All classes, or those of the lowest IoU, lowest first; then how many are left out."""
        head, *rows = self.rows()
        if len(rows) <= MOST_TOLD:
            return [head, *rows]
        known = sorted((row for row in rows if not math.isnan(float(row[1]))), key=lambda row: float(row[1]))
        left = len(rows) - len(known[:MOST_TOLD])
        return [head, *known[:MOST_TOLD], [f"… {left} more", math.nan, math.nan, math.nan, math.nan]]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
