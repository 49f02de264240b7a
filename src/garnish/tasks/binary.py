"""Base class of tasks with one binary map: targets in {0, 1, 255 = no label}, balanced cross-entropy.

Shape letters: B pictures, H W pixels.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from garnish.errors import DataError
from garnish.targets.target import IGNORE, Target
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class BinaryTask(Task, ABC):
    """A task with one map of probabilities: the head gives logits (B, 1, H, W), the target holds 0, 1 and 255."""

    channels: ClassVar[int] = 1
    higher_is_better: ClassVar[bool] = True
    target: ClassVar[type[Target]] = YesOrNo

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(4,): Σ −ln p over positives, Σ −ln(1 − p) over negatives, number of positives, number of negatives."""
        assert prediction.shape == target.shape, f"{tuple(prediction.shape)} against {tuple(target.shape)}"
        logits = prediction.float()
        yes, no = target == 1, target == 0
        # softplus(∓z) is −ln sigmoid(±z) without overflow.
        return torch.stack(
            [(F.softplus(-logits) * yes).sum(), (F.softplus(logits) * no).sum(), yes.sum().float(), no.sum().float()]
        )

    def check_target(self, target: Tensor, where: str) -> None:
        """Raise DataError unless ``target`` is (1, H, W) and holds 0, 1 and 255 only."""
        if target.ndim != 3 or target.shape[0] != 1:
            raise DataError(f"{where}: expected one map (1, H, W), got shape {tuple(target.shape)}")
        bad = torch.unique(target[(target != 0) & (target != 1) & (target != IGNORE)])
        if len(bad):
            shown = ", ".join(f"{v:g}" for v in bad[:5].tolist()) + (" …" if len(bad) > 5 else "")
            raise DataError(
                f"{where}: values {shown} in a yes-or-no map, which holds 0, 1 and {IGNORE} = no label;"
                " set `threshold` or `positive` in the data description"
            )

    def decode(self, prediction: Tensor) -> Tensor:
        """Logits (B, 1, H, W) → probabilities (B, H, W) float32 in [0, 1]."""
        return prediction[:, 0].float().sigmoid()


def balanced_bce(sums: Tensor, positive_weight: float | None) -> Tensor:
    """() w·Σ positives' terms + (1 − w)·Σ negatives' terms, divided by the number of labelled pixels; 0 without any.

    Args:
        sums: total of :meth:`BinaryTask.sums`.
        positive_weight: w; None: the share of negatives among the labelled pixels (Xie & Tu 2015, eq. 2).
    """
    pos, neg, num_pos, num_neg = sums.unbind()
    count = (num_pos + num_neg).clamp_min(1)
    w = num_neg / count if positive_weight is None else torch.full_like(pos, positive_weight)
    return (w * pos + (1 - w) * neg) / count
