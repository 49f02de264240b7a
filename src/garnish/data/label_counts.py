"""How much of the label maps of a task is labelled, and with what.

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
        names: classes; background and foreground of a yes-or-no map; empty for continuous targets.
        pixels: (C,) int64 labelled pixels of each class.
        together: (C,) int64 labelled pixels of the pictures that hold the class.
        labelled: pixels with a label.
        total: all pixels of the task's label maps.
        maps: number of label maps.
        outside: what the files hold and the task's range of values leaves out, by reason.
        orientation: "upright" or "stored": how the description says that they lie.
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
        """Median-frequency weights, one a class (Eigen and Fergus 2015, section 5.1); 1 for a class that never occurs.

        The frequency of a class is its share of the labelled pixels of those pictures that hold it; its weight is the
        median of the frequencies over its own.
        """
        frequency = self.pixels / np.maximum(self.together, 1)
        present = frequency > 0
        if not present.any():
            return tuple(1.0 for _ in self.names)
        middle = float(np.median(frequency[present]))
        return tuple(float(f"{middle / f:.4g}") if f > 0 else 1.0 for f in frequency)


def count_labels(task: Task, target: Tensor) -> LabelCounts:
    """Those of a single valid target, (H, W) or (…, H, W)."""
    names = task.target.classes(tuple(task.legend()), task.channels)
    histogram = np.zeros(0, np.int64)
    if names:
        ids = target.numpy().ravel().astype(np.int64)
        histogram = np.bincount(ids[(ids >= 0) & (ids < len(names))], minlength=len(names))
    labelled = int(task.labelled(target).sum())
    total = target.shape[-2] * target.shape[-1]
    together = np.where(histogram > 0, labelled, 0)
    return LabelCounts(names, histogram, together, labelled, total, 1, left_out(task, target))


def add_counts(several: Sequence[LabelCounts]) -> LabelCounts:
    """Those of several label maps of one task together."""
    if not several:
        return LabelCounts((), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return LabelCounts(
        several[0].names,
        np.sum([c.pixels for c in several], axis=0),
        np.sum([c.together for c in several], axis=0),
        sum(c.labelled for c in several),
        sum(c.total for c in several),
        len(several),
        add_up([c.outside for c in several]),
        several[0].orientation,
    )
