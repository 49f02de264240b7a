"""Uncertainty weighting: each task's weight follows from a noise level that is learnt with the model.

Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from garnish.balancing.balancing import Balance, Balancing
from garnish.errors import OptionError
from garnish.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class Uncertainty(Balancing):
    """Σ c e^(−s) loss + s/2 with one learnt s a task, the logarithm of its noise's variance σ² (Kendall et al. 2018).

    c is 1/2 for regression (depth, normals) and 1 for classification (all whose targets are names of classes), as a
    Gaussian's and a softmax's likelihoods have it (their eqs. 7 and 10). For a loss that stays at L, s ends at
    ln(2 c L), where the task contributes 1/2 whatever its scale. The tasks' own weights have no effect but through
    ``start``.

    A task counts in the steps that have labels of it; where its loss is exactly 0 (no pixel has a label, though its
    picture does) its s gets no gradient, for else it would fall without any evidence. AdamW moves s by at most about
    the learning rate a step, so that short runs end near their start.

    Attributes:
        start: of s; "zero": 0, so that weights begin at c; "weights": weights begin at the tasks' own.
    """

    start: Literal["zero", "weights"] = "zero"

    def __post_init__(self) -> None:
        if self.start not in ("zero", "weights"):
            raise OptionError(f"train.balance.start: {self.start!r}; choose from zero, weights")

    def build(self, tasks: Mapping[str, Task]) -> UncertaintyWeights:
        """See :class:`UncertaintyWeights`.

        Raises:
            OptionError: a task of weight 0 to start from.
        """
        return UncertaintyWeights(tasks, from_weights=self.start == "weights")


@final
class UncertaintyWeights(Balance):
    """See :class:`Uncertainty`.

    Args:
        tasks: every trained task.
        from_weights: begin at the tasks' own weights.
    """

    def __init__(self, tasks: Mapping[str, Task], *, from_weights: bool) -> None:
        super().__init__()
        self.factors = {name: 1.0 if task.target.categorical else 0.5 for name, task in tasks.items()}
        #: s of each task, apart, so that a step without labels of a task leaves it (and its moments) as it is
        self.log_variances = nn.ParameterDict()
        for name, task in tasks.items():
            if from_weights and task.loss_weight <= 0:
                raise OptionError(
                    f"train.balance.start: weights, but the weight of task {name!r} is {task.loss_weight:g}; raise it,"
                    " or set zero"
                )
            start = math.log(self.factors[name] / task.loss_weight) if from_weights else 0.0
            self.log_variances[name] = nn.Parameter(torch.tensor(start))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """() Σ c e^(−s) loss + s/2 over the tasks of this step."""
        terms = []
        for name, loss in losses.items():
            s = self.log_variances[name]
            term = self.factors[name] * (-s).exp() * loss + s / 2
            # != and not >, so that NaN comes through
            terms.append(torch.where(loss.detach() != 0, term, 0.0 * s))
        return torch.stack(terms).sum()

    def learnt_weights(self) -> dict[str, float]:
        """Task → c e^(−s)."""
        return {name: self.factors[name] * math.exp(-float(s.detach())) for name, s in self.log_variances.items()}
