"""How the losses of several tasks become one: fixed weights, and the contract for other ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from garnish.errors import OptionError, suggest
from garnish.tasks.task import Task


class Balance(nn.Module, ABC):
    """Turns the losses of a step into the one that is minimised.

    A module, so that what it learns (its parameters) is optimized and what it keeps (its buffers) is checkpointed. In
    a run of several processes every one sees the same losses, namely those over all pictures of the step.
    """

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Task → () loss, for the tasks that this step has labels of (at least one); returns ()."""


@final
class FixedWeights(Balance):
    """Σ weight · loss.

    Args:
        tasks: every trained task; its ``loss_weight`` counts where ``weights`` says nothing.
        weights: task → weight.

    Raises:
        OptionError: a weight of an unknown task.
    """

    def __init__(self, tasks: Mapping[str, Task], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        for name in weights or {}:
            if name not in tasks:
                raise OptionError(f"train.balance: no task {name!r}{suggest(name, tasks)}")
        self.weights = {name: task.loss_weight for name, task in tasks.items()} | dict(weights or {})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """() weighted sum."""
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()
