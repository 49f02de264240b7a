"""The confusion matrix of a segmentation, with IoU and pixel accuracy from it.

Shape letters: B pictures, H W pixels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from garnish.targets.target import IGNORE
from garnish.tasks.metrics.totals import ratio_or_nan


def confusion_matrix(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64 pixel counts, rows by target class, columns by predicted class; unlabelled pixels are ignored.

    Args:
        predicted: (B, H, W) ids below ``num_classes``.
        target: (B, H, W) ids below ``num_classes``, or 255 for pixels without a label.
        num_classes: C.
    """
    valid = target != IGNORE
    pairs = target[valid].long() * num_classes + predicted[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(matrix: Tensor) -> Tensor:
    """(C,) float64 intersection over union; NaN for a class in neither the targets nor the predictions."""
    both = matrix.diagonal()
    return ratio_or_nan(both, matrix.sum(0) + matrix.sum(1) - both)


def pixel_accuracy(matrix: Tensor) -> Tensor:
    """() float64 share of labelled pixels that are correct; NaN if there are none."""
    return ratio_or_nan(matrix.diagonal().sum(), matrix.sum())
