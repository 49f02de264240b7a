"""Fixed loss weights: the tasks' own, which are the literature's by default, or given ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from garnish.balancing.balancing import Balance, Balancing
from garnish.checking.bounds import Weight
from garnish.errors import OptionError, shown, suggest
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class Fixed(Balancing):
    """Σ w · loss with fixed weights w.

    Attributes:
        weights: task → w; a task that is left out keeps its own ``weight``, whose default is the literature's.

    Example:
        >>> balance = gn.Fixed(weights={"depth": 2.0}).build({"seg": gn.Semantic(classes=3), "depth": gn.Depth()})
        >>> balance.weights
        {'seg': 1.0, 'depth': 2.0}
    """

    weights: Mapping[str, Weight] = field(default_factory=dict)

    def build(self, tasks: Mapping[str, Task]) -> FixedWeights:
        """The weighted sum as a module; raises :class:`OptionError` for a weight of an unknown task."""
        return FixedWeights(tasks, self.weights)


@final
class FixedWeights(Balance):
    """Σ weight · loss with fixed weights.

    Args:
        tasks: every trained task; its ``loss_weight`` is used if it is not in ``weights``.
        weights: task → weight.

    Raises:
        OptionError: a weight of an unknown task.
    """

    def __init__(self, tasks: Mapping[str, Task], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        for name in weights or {}:
            if name not in tasks:
                raise OptionError(f"train.balance: no task {shown(name)}{suggest(name, tasks)}")
        self.weights = {name: task.loss_weight for name, task in tasks.items()} | dict(weights or {})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the losses, ()."""
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()
