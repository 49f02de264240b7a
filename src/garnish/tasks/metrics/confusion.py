"""The confusion matrix of a segmentation, and what is read off it.

Shape letters: B pictures, H W pixels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from garnish.targets.target import IGNORE
from garnish.tasks.metrics.totals import ratio


def confusion_matrix(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64 counts, rows the target's class, columns the predicted one; pixels without a label are left out.

    Args:
        predicted: (B, H, W) ids below ``num_classes``.
        target: (B, H, W) ids below ``num_classes``, or 255 where there is no label.
        num_classes: C.
    """
    valid = target != IGNORE
    pairs = target[valid].long() * num_classes + predicted[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(matrix: Tensor) -> Tensor:
    """(C,) float64 intersection over union; NaN for a class that neither the targets nor the predictions hold."""
    both = matrix.diagonal()
    return ratio(both, matrix.sum(0) + matrix.sum(1) - both)


def pixel_accuracy(matrix: Tensor) -> Tensor:
    """() float64 share of labelled pixels that are right; NaN where there are none."""
    return ratio(matrix.diagonal().sum(), matrix.sum())
