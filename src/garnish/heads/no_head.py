"""No decoder: tasks whose feature maps somebody else decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from garnish.engine.blocks import FeatureInfo
from garnish.heads.head import Head


@final
@dataclass(frozen=True, kw_only=True)
class NoHead(Head):
    """Adapters without a decoder: :meth:`garnish.Model.features` gives the maps to one of your own (docs/your-loop.md).

    The task still says what its labels are, its loss, its metric and how an output is decoded. The model trains, saves
    and loads its adapters; what needs an output of the task (a forward pass, predict, fit, export) refuses in one line.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"seg": gn.Semantic(classes=3)}, gn.NoHead())
        >>> [info.channels for info in model.feature_info()]
        [32, 64, 160, 256]
    """

    decodes: ClassVar[bool] = False

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> nn.Module:
        """A module without tensors, which is never run."""
        return nn.Identity()
