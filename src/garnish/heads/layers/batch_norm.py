"""Batch norms that train where a batch holds one value a channel: one picture of a task, and a map of one position.

Such a value has no statistics of its own (its variance is 0), and torch refuses it. It occurs where small pictures meet
a coarse map or a pooled one, and in a large batch too, when one of its pictures alone has labels of a task.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from garnish.engine.open_sizes import ordered


@final
class BatchNorm1d(nn.BatchNorm1d):
    """Torch's, but for one value a channel in training: it is normalised by the running statistics, which it leaves."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) or (B, C, L) → the same shape."""
        return by_running_statistics(self, x) if _is_single(self, x) else super().forward(ordered(x))


@final
class BatchNorm2d(nn.BatchNorm2d):
    """Torch's, but for one value a channel in training: it is normalised by the running statistics, which it leaves."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return by_running_statistics(self, x) if _is_single(self, x) else super().forward(ordered(x))


def accept_single_values(head: nn.Module) -> None:
    """Make every batch norm in a head one of these, whoever wrote the head; tensors, hooks and references are kept."""
    for module in head.modules():
        for theirs, ours in ((nn.BatchNorm1d, BatchNorm1d), (nn.BatchNorm2d, BatchNorm2d)):
            if type(module) is theirs:
                module.__class__ = ours


def by_running_statistics(norm: _BatchNorm, x: Tensor) -> Tensor:
    """What a norm makes of ``x`` in evaluation."""
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _is_single(norm: _BatchNorm, x: Tensor) -> bool:
    return norm.training and norm.running_mean is not None and x.numel() == x.shape[1]
