"""Histograms of the quantities of a label: which ones is for the kind of its target, :meth:`Target.quantities`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from garnish.doctor.looked import Looked
from garnish.targets.histogram import Histogram

#: Pixels of a label that are counted at most, of an even grid.
MOST_COUNTED = 10_000


def histograms(seen: Looked, task: str) -> dict[str, Histogram]:
    """Name of a quantity → its histogram over a grid of at most :data:`MOST_COUNTED` pixels of a valid label."""
    target = seen.target(task)
    if target is None or seen.task(task).target.categorical:
        return {}
    values = labelled_grid(target, seen.task(task).labelled)
    return dict(seen.task(task).target.quantities(values)) if values.shape[1] else {}


def labelled_grid(target: Tensor, labelled: Callable[[Tensor], Tensor]) -> np.ndarray:
    """(C, n): values of a target (C, H, W) at the labelled pixels of an even grid of :data:`MOST_COUNTED` at most.

    Args:
        target: without a batch axis.
        labelled: gives (1, h, w) bool of the grid's pixels.
    """
    step = max(1, math.ceil(math.sqrt(target.shape[-2] * target.shape[-1] / MOST_COUNTED)))
    grid = target.as_subclass(Tensor)[..., step // 2 :: step, step // 2 :: step]
    values: np.ndarray = grid.numpy()
    return values[:, labelled(grid).numpy()[0]]
