"""Batch norms that accept one value per channel in training: a single picture whose map has a single position.

Such a value has no statistics of its own (its variance is 0), and torch refuses it. It occurs for small pictures with
a coarse or pooled map, also in a large batch if only one of its pictures has labels of a task.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from garnish.engine.open_sizes import ordered


@final
class BatchNorm1d(nn.BatchNorm1d):
    """Torch's; but one value per channel in training is normalised by the running statistics, which stay unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C) or (B, C, L) → the same shape."""
        return by_running_statistics(self, x) if _is_single(self, x) else super().forward(ordered(x))


@final
class BatchNorm2d(nn.BatchNorm2d):
    """Torch's; but one value per channel in training is normalised by the running statistics, which stay unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) → the same shape."""
        return by_running_statistics(self, x) if _is_single(self, x) else super().forward(ordered(x))


def accept_single_values(head: nn.Module) -> None:
    """Turn torch's batch norms in any head into those of this file; tensors, hooks and references are kept."""
    for module in head.modules():
        for theirs, ours in ((nn.BatchNorm1d, BatchNorm1d), (nn.BatchNorm2d, BatchNorm2d)):
            if type(module) is theirs:
                module.__class__ = ours


def by_running_statistics(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise ``x`` with the running statistics, as in evaluation mode."""
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _is_single(norm: _BatchNorm, x: Tensor) -> bool:
    return norm.training and norm.running_mean is not None and x.numel() == x.shape[1]
