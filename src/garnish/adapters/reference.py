"""The references that adapters are compared with: a frozen backbone (heads only) and full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from garnish.engine.adapter import Method, Plan
from garnish.engine.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class Frozen(Method):
    """Heads only: nothing is added to the backbone and nothing in it is trained.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        1537
    """

    is_reference: ClassVar[bool] = True

    may_be_empty: ClassVar[bool] = True

    def plan(self, backbone: Trunk) -> Plan:
        """An empty plan."""
        return Plan()


@dataclass(frozen=True, kw_only=True)
class FullFineTuning(Method):
    """Every parameter of the backbone is trained in place; its own dropout and drop-path act in training.

    A bundle stores the difference to the frozen values. Tuned weights cannot differ by row, so each owner needs a
    pass of its own.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.FullFineTuning(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        3320929
    """

    is_reference: ClassVar[bool] = True

    def plan(self, backbone: Trunk) -> Plan:
        """All parameters of the backbone as tuned, no adapter."""
        slots = backbone.named_slots()
        names = tuple(n for n, module, leaf in slots if isinstance(module._parameters.get(leaf), nn.Parameter))
        return Plan(tuned=names, drops=True)
