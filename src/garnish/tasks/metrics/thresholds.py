"""Counting values above many thresholds at once, by a cumulative histogram over the intervals between thresholds.

Shape letters: T thresholds, B pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
