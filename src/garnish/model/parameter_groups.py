"""The groups of an optimizer: adapters and heads at their own rates, decay on matrices alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from torch import nn


class ParameterGroup(TypedDict):
    """One group as every optimizer of torch takes it."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: float


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], *, lr: float, head_lr: float | None, weight_decay: float
) -> list[ParameterGroup]:
    """At most four groups: {encoder, heads} × {two or more dimensions: decayed, fewer: not}; none is empty.

    Args:
        parameters: by stored name; those of heads start with ``heads.``.
        lr: rate of adapters and tuned backbone parameters.
        head_lr: rate of heads; None: ``lr``.
        weight_decay: of tensors of two or more dimensions.
    """
    groups: list[ParameterGroup] = []
    for is_head in (False, True):
        rate = head_lr if is_head and head_lr is not None else lr
        for decayed in (True, False):
            members = [
                p for n, p in parameters.items() if n.startswith("heads.") == is_head and (p.ndim > 1) == decayed
            ]
            if members:
                groups.append({"params": members, "lr": rate, "weight_decay": weight_decay if decayed else 0.0})
    return groups
