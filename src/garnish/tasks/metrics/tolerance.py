"""Comparing thin structures within a tolerance: dilation with a disc; precision, recall and F from pooled counts.

Shape letters: B pictures, H W pixels.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from garnish.tasks.metrics.totals import ratio_or_nan


def disc_maximum(x: Tensor, radius_px: int) -> Tensor:
    """(B, H, W) float → the maximum within ``radius_px`` (Euclidean, between pixel centres) of each pixel.

    On a map of zeros and ones this is the dilation with a disc. Since maximum and threshold commute, one call on a
    probability map dilates the masks of all thresholds at once.
    """
    if radius_px == 0:
        return x
    height = x.shape[-2]
    # A disc is a stack of horizontal runs: pool each row once per run length, then take the maximum over rows.
    runs = {dy: isqrt(radius_px**2 - dy**2) for dy in range(-radius_px, radius_px + 1)}
    pooled = {
        half: F.pad(
            F.max_pool2d(x[:, None], (1, 2 * half + 1), stride=1, padding=(0, half))[:, 0],
            (0, 0, radius_px, radius_px),
            value=-torch.inf,
        )
        for half in set(runs.values())
    }
    out = x
    for dy, half in runs.items():
        start = radius_px + dy
        out = torch.maximum(out, pooled[half][:, start : start + height])
    return out


def precision_recall(
    matched_predicted: Tensor, num_predicted: Tensor, matched_true: Tensor, num_true: Tensor
) -> tuple[Tensor, Tensor]:
    """Precision and recall in float64 from pooled counts.

    If nothing is predicted, precision is 1 if nothing is true either, else 0; if nothing is true, recall is 1
    if nothing is predicted either, else 0. So two empty sets agree perfectly.
    """
    neither = ((num_predicted == 0) & (num_true == 0)).double()
    precision = torch.where(num_predicted == 0, neither, ratio_or_nan(matched_predicted, num_predicted))
    recall = torch.where(num_true == 0, neither, ratio_or_nan(matched_true, num_true))
    return precision, recall


def f_measure(precision: Tensor, recall: Tensor, beta_squared: float = 1.0) -> Tensor:
    """F-measure (1 + β²)·P·R / (β²·P + R), 0 where both are 0."""
    below = beta_squared * precision + recall
    return torch.where(below == 0, 0.0, (1 + beta_squared) * precision * recall / below.clamp_min(1e-300))
