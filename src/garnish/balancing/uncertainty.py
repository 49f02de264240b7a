"""Uncertainty weighting: each task's loss weight follows from a noise level that is learned with the model.

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
    """Σ c e^(−s) loss + s/2 with one learned s per task, the log of its noise variance σ² (Kendall et al. 2018).

    c is 1/2 for regression (depth, normals) and 1 for classification (tasks whose targets are names of classes), from
    the Gaussian and the softmax likelihood (their eqs. 7 and 10). If a loss stays at L, s converges to ln(2 c L), where
    the task contributes 1/2 regardless of its scale. The tasks' own weights only matter for ``start="weights"``.

    A task counts in the steps that have labels of it; if its loss is exactly 0 (its pictures have no labelled pixel)
    its s gets no gradient, as it would otherwise fall without evidence. AdamW moves s by at most about
    the learning rate per step, so short runs end near their start.

    Attributes:
        start: initial s: "zero": 0, so that weights start at c; "weights": so that they start at the tasks' own.

    Example:
        >>> balance = gn.Uncertainty().build({"seg": gn.Semantic(classes=3), "depth": gn.Depth()})
        >>> len(list(balance.parameters()))
        2
    """

    start: Literal["zero", "weights"] = "zero"

    def build(self, tasks: Mapping[str, Task]) -> UncertaintyWeights:
        """The module that learns one s per task.

        Raises:
            OptionError: a task of weight 0, with ``start="weights"``.
        """
        return UncertaintyWeights(tasks, from_weights=self.start == "weights")


@final
class UncertaintyWeights(Balance):
    """The loss of :class:`Uncertainty`, with its learned s.

    Args:
        tasks: every trained task.
        from_weights: start at the tasks' own weights.
    """

    def __init__(self, tasks: Mapping[str, Task], *, from_weights: bool) -> None:
        super().__init__()
        self.factors = {name: 1.0 if task.target.categorical else 0.5 for name, task in tasks.items()}
        #: one parameter s per task, so that a step without labels of a task changes neither it nor its moments
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
        """Σ c e^(−s) loss + s/2 over the tasks of this step, ()."""
        terms = []
        for name, loss in losses.items():
            s = self.log_variances[name]
            term = self.factors[name] * (-s).exp() * loss + s / 2
            # != instead of >, so that NaN is passed on
            terms.append(torch.where(loss.detach() != 0, term, 0.0 * s))
        return torch.stack(terms).sum()

    def learnt_weights(self) -> dict[str, float]:
        """Task → current factor c e^(−s) of its loss."""
        return {name: self.factors[name] * math.exp(-float(s.detach())) for name, s in self.log_variances.items()}
