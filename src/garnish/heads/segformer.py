"""SegFormer's all-MLP decoder (Xie et al., NeurIPS 2021, eq. 4).

Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import Head


@dataclass(frozen=True, kw_only=True)
class SegFormerHead(Head):
    """Each map to ``channels``, all to the finest grid, joined, fused, classified.

    Attributes:
        channels: width of the decoder (256 for B0 and B1, 768 for B2 to B5 in the paper).
        dropout: probability that a channel of the fused map is dropped in training.
        norm: a LayerNorm over channels in front of each map, for trunks whose maps leave without one (Swin); published
            counts of adapters on Swin-T hold one for each task and stage.
    """

    channels: int = 256
    dropout: float = 0.1
    norm: bool = False

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise OptionError(f"SegFormerHead.channels: {self.channels} is out of range; give at least 1")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"SegFormerHead.dropout: {self.dropout} is out of range; give 0 to below 1")

    @property
    def pyramid(self) -> bool:
        """True: the decoder joins maps of growing stride."""
        return True

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> SegFormerDecoder:
        """The module; raises :class:`OptionError` where there are no features or no outputs."""
        if not features or out_channels < 1:
            raise OptionError(f"SegFormerHead: needs features and outputs, got {len(features)} and {out_channels}")
        return SegFormerDecoder(features, out_channels, self.channels, self.dropout, self.norm)


class SegFormerDecoder(nn.Module):
    """(LayerNorm,) linear d_i→C a map, bilinear to the finest, joined, 1×1 4C→C + norm + ReLU, dropout, 1×1."""

    def __init__(
        self, features: Sequence[FeatureInfo], out_channels: int, channels: int, dropout: float, norm: bool
    ) -> None:
        super().__init__()
        self.input_norms = nn.ModuleList(
            nn.LayerNorm(f.channels, eps=1e-6) if norm else nn.Identity() for f in features
        )
        self.projections = nn.ModuleList(nn.Linear(f.channels, channels) for f in features)
        self.fuse = nn.Conv2d(channels * len(features), channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, out_channels, 1)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first → (B, out_channels, H_0, W_0)."""
        size = features[0].shape[-2:]
        # The joined map is never built: a 1×1 convolution and upsampling commute, so each map passes its own columns
        # of the fusing weight at its own size. Same result to rounding, a third of the work, a quarter of the memory.
        columns = self.fuse.weight.chunk(len(features), dim=1)[::-1]
        fused: Tensor | None = None
        for x, norm, project, weight in zip(features, self.input_norms, self.projections, columns, strict=True):
            # contiguous, for torch sums other layouts in an order that depends on whether the weight is trained
            y = F.conv2d(project(norm(x.permute(0, 2, 3, 1).contiguous())).permute(0, 3, 1, 2), weight)
            fused = y if fused is None else fused + F.interpolate(y, size, mode="bilinear", align_corners=False)
        out: Tensor = self.classifier(self.dropout(F.relu(self.norm(fused))))
        return out
