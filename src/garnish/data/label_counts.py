"""Pixel counts of a task's label maps: labelled pixels, pixels of each class, and class weights from them.

Shape letters: H W pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from torch import Tensor

from garnish.data.labels.uncounted import Outside, add_up, left_out
from garnish.tasks.task import Task


@final
@dataclass
class LabelCounts:
    """Pixels of one task over the pictures that were checked.

    Attributes:
        names: class names; background and foreground for a binary map; empty for continuous targets.
        pixels: (C,) int64 labelled pixels of each class.
        together: (C,) int64 labelled pixels of the pictures that contain the class.
        labelled: pixels with a label.
        total: all pixels of the task's label maps.
        maps: number of label maps.
        outside: values in the files that are outside the task's range, by reason.
        orientation: "upright" or "stored", as set in the description.
    """

    names: tuple[str, ...]
    pixels: np.ndarray
    together: np.ndarray
    labelled: int = 0
    total: int = 0
    maps: int = 0
    outside: dict[str, Outside] = field(default_factory=dict)
    orientation: str = "upright"

    @property
    def shares(self) -> dict[str, float]:
        """Class → share of all pixels of the label maps, ignored ones included, in [0, 1]."""
        return {n: float(p) / max(self.total, 1) for n, p in zip(self.names, self.pixels, strict=True)}

    def class_weights(self) -> tuple[float, ...]:
        """Median-frequency weights per class (Eigen and Fergus 2015, section 5.1); 1 for a class that never occurs.

        The frequency of a class is its share of the labelled pixels of those pictures that contain it; its weight is
        the median of all frequencies divided by its own.
        """
        frequency = self.pixels / np.maximum(self.together, 1)
        present = frequency > 0
        if not present.any():
            return tuple(1.0 for _ in self.names)
        middle = float(np.median(frequency[present]))
        return tuple(float(f"{middle / f:.4g}") if f > 0 else 1.0 for f in frequency)


def count_labels(task: Task, target: Tensor) -> LabelCounts:
    """Count the pixels of a single valid target, (H, W) or (…, H, W)."""
    names = task.counted_classes
    histogram = np.zeros(0, np.int64)
    if names:
        histogram = _pixels(target.numpy().ravel(), len(names))
    labelled = int(np.count_nonzero(task.labelled(target).numpy()))  # torch counts bools several times slower
    total = target.shape[-2] * target.shape[-1]
    together = np.where(histogram > 0, labelled, 0)
    return LabelCounts(names, histogram, together, labelled, total, 1, left_out(task, target))


def _pixels(ids: np.ndarray, classes: int) -> np.ndarray:
    """(C,) int64 how often each class occurs in (n,) valid ids; by runs of equal ones, of which a map has few."""
    ends = np.flatnonzero(ids[1:] != ids[:-1])
    lengths = np.diff(ends, prepend=-1, append=len(ids) - 1)
    values = ids[np.append(ends, len(ids) - 1)].astype(np.int64)
    return np.bincount(values, lengths, classes)[:classes].astype(np.int64)  # a valid target holds ids up to 255


def add_counts(several: Sequence[LabelCounts]) -> LabelCounts:
    """Sum the counts of several label maps, or groups of them, of one task."""
    if not several:
        return LabelCounts((), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return LabelCounts(
        several[0].names,
        np.sum([c.pixels for c in several], axis=0),
        np.sum([c.together for c in several], axis=0),
        sum(c.labelled for c in several),
        sum(c.total for c in several),
        sum(c.maps for c in several),
        add_up([c.outside for c in several]),
        several[0].orientation,
    )
