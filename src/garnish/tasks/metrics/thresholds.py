"""Counting values above many thresholds at once, by a cumulative histogram over the intervals between thresholds.

Shape letters: T thresholds, B pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from garnish.reporting.number_tables import Sweep

#: 0.01, 0.02 … 0.99
HUNDREDTHS = tuple(k / 100 for k in range(1, 100))
#: 0.05, 0.10 … 0.95
TWENTIETHS = tuple(k / 20 for k in range(1, 20))


def counts_above(values: Tensor, mask: Tensor, thresholds: tuple[float, ...], *, or_at: bool = False) -> Tensor:
    """(B, T) int64: number of values of each picture, inside the mask, that are strictly above each threshold.

    Args:
        values: (B, …) float32.
        mask: (B, …) bool.
        thresholds: T ascending numbers, compared in float32.
        or_at: also count values equal to the threshold.
    """
    pictures, steps = values.shape[0], len(thresholds) + 1
    edges = torch.tensor(thresholds, dtype=torch.float32, device=values.device)
    # The number of thresholds below each value.
    passed = torch.bucketize(values.float().contiguous(), edges, right=or_at)
    offset = torch.arange(pictures, device=values.device).reshape(-1, *(1,) * (values.ndim - 1)) * steps
    histogram = torch.bincount((passed + offset)[mask], minlength=pictures * steps).reshape(pictures, steps)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:]


def over_thresholds(
    thresholds: tuple[float, ...], precision: Tensor, recall: Tensor, f: Tensor, *, f_name: str = "F"
) -> Sweep:
    """Precision, recall and F, (T,) each, at T thresholds, as a table that can be drawn."""
    measures = {"precision": precision.tolist(), "recall": recall.tolist(), f_name: f.tolist()}
    title = "Precision, recall and F over thresholds"
    return Sweep(
        name="thresholds", title=title, setting="threshold", at=thresholds, measures=measures, bounds=(0.0, 1.0)
    )
