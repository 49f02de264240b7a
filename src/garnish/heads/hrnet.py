"""HRNet's decoder (Wang et al., TPAMI 2021) as MTLoRA uses it (Agiza et al., CVPR 2024).

Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.checking.bounds import Widths
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import Head

#: the concatenated map is widened by this factor before the classifier
_EXPANSION = 4


@final
@dataclass(frozen=True, kw_only=True)
class HRNetHead(Head):
    """Each map is projected to its width and resized to the finest grid; concatenated, widened fourfold, classified.

    MTLoRA's read Swin-T's maps after the next stage's merging (``taps="merged"``): four of them, for
    21, 7, 1 and 3 outputs, have 1,946,624 parameters. Their classifier has torch's initialisation; here it is
    N(0, 0.01²) with zero biases, so that outputs start near zero.

    Attributes:
        widths: channels to which each map is projected, finest first (18, 36, 72, 144: those of HRNet-W18).

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), {"depth": gn.Depth()}, gn.HRNetHead())
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())
        347185
    """

    pyramid: ClassVar[bool] = True

    widths: Widths = (18, 36, 72, 144)

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> HRNetDecoder:
        """The decoder for these maps; raises :class:`OptionError` without outputs, or if ``widths`` are not as many."""
        if not features or out_channels < 1:
            raise OptionError(f"HRNetHead: needs features and outputs, got {len(features)} and {out_channels}")
        if len(features) != len(self.widths):
            raise OptionError(
                f"HRNetHead.widths: {len(self.widths)} widths for {len(features)} feature maps; give {len(features)}"
            )
        return HRNetDecoder(features, out_channels, self.widths)


@final
class HRNetDecoder(nn.Module):
    """1×1 C_i→w_i without bias, bilinear to the finest, concat, 1×1 Σw→4Σw + norm + ReLU, 1×1 to the outputs."""

    def __init__(self, features: Sequence[FeatureInfo], out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(features, widths, strict=True)
        self.projections = nn.ModuleList(nn.Conv2d(f.channels, w, 1, bias=False) for f, w in pairs)
        self.coarser = [f.stride != features[0].stride for f in features]
        hidden = _EXPANSION * sum(widths)
        # its bias has no effect before a batch norm, but published counts include it
        self.fuse = nn.Conv2d(sum(widths), hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.classifier = nn.Conv2d(hidden, out_channels, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first → (B, out_channels, H_0, W_0)."""
        size = features[0].shape[-2:]
        # contiguous, as for other layouts torch's order of summation depends on whether the weight is trained
        maps = [project(x.contiguous()) for x, project in zip(features, self.projections, strict=True)]
        each = zip(maps, self.coarser, strict=True)
        maps = [F.interpolate(m, size, mode="bilinear") if coarser else m for m, coarser in each]
        out: Tensor = self.classifier(F.relu(self.norm(self.fuse(torch.cat(maps, dim=1)))))
        return out
