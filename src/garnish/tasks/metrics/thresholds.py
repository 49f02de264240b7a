"""Counting at many thresholds in one go: a histogram over the gaps between thresholds, summed from the top.

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
    """(B, T) int64: how many values of each picture, where the mask holds, lie strictly above each threshold.

    Args:
        values: (B, …) float32.
        mask: (B, …) bool.
        thresholds: T ascending numbers, compared in float32.
        or_at: a value that equals a threshold counts as above it.
    """
    pictures, steps = values.shape[0], len(thresholds) + 1
    edges = torch.tensor(thresholds, dtype=torch.float32, device=values.device)
    # The number of thresholds below a value.
    passed = torch.bucketize(values.float().contiguous(), edges, right=or_at)
    offset = torch.arange(pictures, device=values.device).reshape(-1, *(1,) * (values.ndim - 1)) * steps
    histogram = torch.bincount((passed + offset)[mask], minlength=pictures * steps).reshape(pictures, steps)
    return histogram.flip(1).cumsum(1).flip(1)[:, 1:]
