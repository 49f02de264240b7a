"""UPerNet's decoder (Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018, section 3.2).

Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.checking.bounds import Channels, Dropout
from garnish.checking.plain_data import integers, lengths
from garnish.engine.blocks import FeatureInfo
from garnish.engine.open_sizes import pooled_to
from garnish.errors import OptionError
from garnish.heads.head import Head
from garnish.heads.layers.batch_norm import BatchNorm2d


@final
@dataclass(frozen=True, kw_only=True)
class UPerHead(Head):
    """Pyramid pooling of the coarsest map, a top-down feature pyramid (FPN), fusion of all levels.

    A wide decoder: at the defaults 31 M parameters and 40 GMACs on Swin-T at 224². The auxiliary head of published
    training recipes is not included.

    Attributes:
        channels: width of every level (512 in the paper's successors, mmsegmentation and transformers).
        pool_scales: sides of the grids to which the coarsest map is average-pooled.
        dropout: probability that a channel of the fused map is dropped in training.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), {"depth": gn.Depth()}, gn.UPerHead(channels=16))
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())
        83089
    """

    pyramid: ClassVar[bool] = True

    channels: Channels = 512
    pool_scales: Annotated[tuple[Annotated[int, integers(1, 256)], ...], lengths(1, 64)] = (1, 2, 3, 6)
    dropout: Dropout = 0.1

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> UPerDecoder:
        """The decoder for these feature maps; raises :class:`OptionError` if there are no features or no outputs."""
        if not features or out_channels < 1:
            raise OptionError(f"UPerHead: needs features and outputs, got {len(features)} and {out_channels}")
        return UPerDecoder(features, out_channels, self)


@final
class UPerDecoder(nn.Module):
    """Pyramid pooling + 3×3 on the coarsest; 1×1 laterals, summed top-down; 3×3 per level, concat, 3×3, 1×1."""

    def __init__(self, features: Sequence[FeatureInfo], out_channels: int, options: UPerHead) -> None:
        super().__init__()
        channels, scales = options.channels, options.pool_scales
        self.pool_scales = scales
        self.pooled = nn.ModuleList(ConvUnit(features[-1].channels, channels, 1) for _ in scales)
        self.pyramid = ConvUnit(features[-1].channels + len(scales) * channels, channels, 3)
        self.laterals = nn.ModuleList(ConvUnit(f.channels, channels, 1) for f in features[:-1])
        self.smooth = nn.ModuleList(ConvUnit(channels, channels, 3) for _ in features[:-1])
        self.fuse = ConvUnit(len(features) * channels, channels, 3)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(channels, out_channels, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first → (B, out_channels, H_0, W_0)."""
        # contiguous, as for other layouts torch's order of summation depends on whether the weight is trained
        features = [x.contiguous() for x in features]
        last = features[-1]
        pooled = [last]
        for scale, unit in zip(self.pool_scales, self.pooled, strict=True):
            pooled.append(_resized(unit(pooled_to(last, scale)), last))
        levels = [unit(x) for x, unit in zip(features, self.laterals, strict=False)]
        levels.append(self.pyramid(torch.cat(pooled, dim=1)))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + _resized(levels[i], levels[i - 1])
        # the coarsest level has had its 3×3 convolution
        levels = [*(unit(x) for x, unit in zip(levels, self.smooth, strict=False)), levels[-1]]
        fused = self.fuse(torch.cat([levels[0], *(_resized(x, levels[0]) for x in levels[1:])], dim=1))
        out: Tensor = self.classifier(self.dropout(fused))
        return out


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


@final
class ConvUnit(nn.Module):
    """A convolution without bias and with same padding, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = BatchNorm2d(out_channels)  # a single picture pooled to one position has one value per channel
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        return F.relu(self.norm(self.conv(x)))
