"""The smallest decoder: a norm and a linear layer on the backbone's feature maps.

Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import Head

Taps = Literal["all", "last"]


@dataclass(frozen=True, kw_only=True)
class LinearHead(Head):
    """Norm over channels, then a 1×1 convolution; the results are resized to the finest grid and added.

    Attributes:
        taps: "all": use every feature map; "last": only the last one.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), {"depth": gn.Depth()}, gn.LinearHead())
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())
        1537
    """

    taps: Taps = "all"

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> LinearDecoder:
        """The decoder for these feature maps; raises :class:`OptionError` if there are no features or no outputs."""
        if not features or out_channels < 1:
            raise OptionError(f"LinearHead: needs features and outputs, got {len(features)} and {out_channels}")
        return LinearDecoder(features, out_channels, first=0 if self.taps == "all" else len(features) - 1)


class LinearDecoder(nn.Module):
    """Σ_i upsample(conv1×1_i(norm_i(x_i))): equals a 1×1 convolution of the concatenated maps, but is cheaper."""

    def __init__(self, features: Sequence[FeatureInfo], out_channels: int, first: int = 0) -> None:
        super().__init__()
        used = features[first:]
        self.first = first
        self.coarser = [f.stride != features[0].stride for f in used]
        self.norms = nn.ModuleList(LayerNorm2d(f.channels, eps=1e-6) for f in used)
        # Upsampling keeps constants, so one bias is enough for all.
        projections = [nn.Conv2d(f.channels, out_channels, 1, bias=i == 0) for i, f in enumerate(used)]
        for projection in projections:
            nn.init.normal_(projection.weight, std=0.01)
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)
        self.projections = nn.ModuleList(projections)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first → (B, out_channels, H_0, W_0)."""
        size = features[0].shape[-2:]
        parts = []
        for x, norm, project, coarser in zip(
            features[self.first :], self.norms, self.projections, self.coarser, strict=True
        ):
            y = project(norm(x))
            parts.append(F.interpolate(y, size, mode="bilinear", align_corners=False) if coarser else y)
        out: Tensor = parts[0]
        for part in parts[1:]:
            out = out + part
        return out
