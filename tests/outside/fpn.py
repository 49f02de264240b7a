"""A plain feature pyramid with a segmentation branch on it.

Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017 (figure 3); Kirillov et al., Panoptic Feature
Pyramid Networks, CVPR 2019 (section 3.1: all levels brought to the finest and added).
Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import Head


@final
@dataclass(frozen=True, kw_only=True)
class FPNHead(Head):
    """1×1 laterals added from the coarsest map down, 3×3 a level, all levels added at the finest, 1×1.

    Attributes:
        channels: width of every level (256 in the paper).
    """

    pyramid: ClassVar[bool] = True

    channels: int = 64

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise OptionError(f"FPNHead.channels: {self.channels} is below 1; use 1 or more")

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> FPNDecoder:
        """The module; raises :class:`OptionError` where there are no features or no outputs."""
        if not features or out_channels < 1:
            raise OptionError(f"FPNHead: needs features and outputs, got {len(features)} and {out_channels}")
        return FPNDecoder(features, out_channels, self.channels)


@final
class FPNDecoder(nn.Module):
    """Top-down pathway, segmentation branch, classifier."""

    def __init__(self, features: Sequence[FeatureInfo], out_channels: int, channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(f.channels, channels, 1) for f in features)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in features)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, out_channels, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first → (B, out_channels, H_0, W_0)."""
        levels = [lateral(x.contiguous()) for lateral, x in zip(self.laterals, features, strict=True)]
        for at in range(len(levels) - 2, -1, -1):
            levels[at] = levels[at] + F.interpolate(levels[at + 1], levels[at].shape[-2:], mode="nearest")
        merged, *coarser = [smooth(x) for smooth, x in zip(self.smooth, levels, strict=True)]
        for x in coarser:
            merged = merged + F.interpolate(x, merged.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.classifier(F.relu(self.norm(merged)))
        return out
