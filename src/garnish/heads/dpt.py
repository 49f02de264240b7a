"""DPT's decoder (Ranftl et al., Vision Transformers for Dense Prediction, ICCV 2021, section 3 and supplement).

Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

from torch import Tensor, nn
from torch.nn import functional as F

from garnish.checking.bounds import Channels, Dropout
from garnish.checking.plain_data import integers, lengths
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import PYRAMID_SCALES, Head, is_plain

Output = Literal["depth", "segmentation"]

#: channels of the last hidden map of the depth output
_DEPTH_WIDTH = 32


@final
@dataclass(frozen=True, kw_only=True)
class DPTHead(Head):
    """Maps are reassembled at four sizes and fused from coarse to fine by residual convolution units.

    Maps of one stride s (plain ViTs) are resampled to strides s/4, s/2, s and 2s by learned layers;
    trunks return maps without the class token, so the readout is the paper's "ignore". Maps of growing stride need no
    reassembling and enter the fusion directly, as in MiDaS 3.1's Swin models; then ``widths`` is not used.
    Outputs are finer than the finest map: of the picture's size ("depth"), or 8 times a plain ViT's grid and twice a
    pyramid's finest ("segmentation"). From there the published segmentation model upsamples by 2 with
    ``align_corners=True``; here the model resizes every head's output to the picture's size without it, which shifts
    the result by up to a quarter of a pixel of that map, most at the borders.

    Attributes:
        channels: width of the fusion.
        widths: channels of the reassembled maps, finest first: (96, 192, 384, 768) in the published ViT-B models,
            (256, 512, 1024, 1024) for ViT-L; Depth Anything's ViT-S has (48, 96, 192, 384) with 64 channels.
        output: the paper's output layers: "depth" has no norms and ends at the picture's size (for regression, and
            cheaper), "segmentation" has a batch norm and dropout and leaves the last upsampling to the model.
        norm: batch norms in the residual units, as in the paper's segmentation models.
        dropout: probability, on the input of the classifier of the segmentation output.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), {"depth": gn.Depth()}, gn.DPTHead(channels=16))
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())
        110825
    """

    channels: Annotated[int, integers(2, 4_096)] = 256
    widths: Annotated[tuple[Channels, ...], lengths(4, 4)] = (96, 192, 384, 768)
    output: Output = "depth"
    norm: bool = False
    dropout: Dropout = 0.1

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> DPTDecoder:
        """The decoder for these feature maps.

        Raises:
            OptionError: no features or no outputs, or maps of one stride that are not four.
        """
        if not features or out_channels < 1:
            raise OptionError(f"DPTHead: needs features and outputs, got {len(features)} and {out_channels}")
        strides = [f.stride for f in features]
        if len(strides) > 1 and strides[0] == strides[-1] and not is_plain(features):
            raise OptionError(
                f"DPTHead: needs {len(self.widths)} maps of one stride or maps of growing stride; got strides {strides}"
            )
        return DPTDecoder(features, out_channels, self)


@final
class DPTDecoder(nn.Module):
    """Reassemble, 3×3 w_i→C per map; then, starting with the coarsest: add, fuse, upsample; last the output layers."""

    def __init__(self, features: Sequence[FeatureInfo], out_channels: int, options: DPTHead) -> None:
        super().__init__()
        channels = options.channels
        plain = is_plain(features)
        widths: Sequence[int] = options.widths if plain else [f.channels for f in features]
        self.reassemble = nn.ModuleList(nn.Identity() for _ in features)
        if plain:
            each = zip(features, widths, PYRAMID_SCALES, strict=True)
            self.reassemble = nn.ModuleList(_reassemble(f.channels, width, scale) for f, width, scale in each)
        self.entrances = nn.ModuleList(nn.Conv2d(w, channels, 3, padding=1, bias=False) for w in widths)
        # there is nothing to add at the coarsest map; the published code has an unused unit there
        self.laterals = nn.ModuleList(ResidualUnit(channels, norm=options.norm) for _ in features[:-1])
        self.units = nn.ModuleList(ResidualUnit(channels, norm=options.norm) for _ in features)
        self.projections = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in features)
        self.output: DepthOutput | SegmentationOutput
        if options.output == "depth":
            self.output = DepthOutput(channels, out_channels, times=round(features[0].stride))
        else:
            self.output = SegmentationOutput(channels, out_channels, options.dropout)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) → (B, out_channels, k·H_0, k·W_0); k depends on the output layers."""
        # contiguous, as for other layouts torch's order of summation depends on whether the weight is trained
        maps = [reassemble(x.contiguous()) for x, reassemble in zip(features, self.reassemble, strict=True)]
        maps = [enter(x) for x, enter in zip(maps, self.entrances, strict=True)]
        last = len(maps) - 1
        x = maps[last]
        for i in range(last, -1, -1):
            if i < last:
                x = x + self.laterals[i](maps[i])
            # A 1×1 convolution and upsampling commute: projecting first needs a quarter of the published code's work.
            x = self.projections[i](self.units[i](x))
            # To the next map's size instead of times 2, which differs on odd grids, so that the maps stay aligned.
            size = maps[i - 1].shape[-2:] if i else [2 * side for side in x.shape[-2:]]
            x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        height, width = features[0].shape[-2:]
        out: Tensor = self.output(x, height, width)
        return out


def _reassemble(channels: int, width: int, scale: float) -> nn.Sequential:
    """1×1 C→w, then resampling by ``scale``: a transposed convolution, nothing, or a 3×3 convolution of stride 2."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 1)]
    if scale > 1:
        times = int(scale)
        layers.append(nn.ConvTranspose2d(width, width, times, stride=times))
    elif scale < 1:
        layers.append(nn.Conv2d(width, width, 3, stride=round(1 / scale), padding=1))
    return nn.Sequential(*layers)


@final
class ResidualUnit(nn.Module):
    """``x + c₂(ReLU(c₁(ReLU(x))))``, each c a 3×3 convolution, followed by a batch norm if ``norm`` is set."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=not norm)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=not norm)
        self.norm1 = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Run the unit: (B, C, H, W) → the same shape."""
        y = self.norm1(self.conv1(F.relu(x)))
        out: Tensor = x + self.norm2(self.conv2(F.relu(y)))
        return out


@final
class DepthOutput(nn.Module):
    """3×3 C→C/2, bilinear to the picture's size, 3×3 C/2→32 + ReLU, 1×1; without the published ReLU at the end."""

    def __init__(self, channels: int, out_channels: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.narrow = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.hidden = nn.Conv2d(channels // 2, _DEPTH_WIDTH, 3, padding=1)
        self.classifier = nn.Conv2d(_DEPTH_WIDTH, out_channels, 1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, C, …) → (B, out_channels, stride·height, stride·width)."""
        size = [self.times * height, self.times * width]
        x = F.interpolate(self.narrow(x), size, mode="bilinear", align_corners=True)
        out: Tensor = self.classifier(F.relu(self.hidden(x)))
        return out


@final
class SegmentationOutput(nn.Module):
    """3×3 C→C + batch norm + ReLU, dropout, 1×1 to the outputs."""

    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, C, H', W') → (B, out_channels, H', W'); ``height`` and ``width`` are not used."""
        out: Tensor = self.classifier(self.dropout(F.relu(self.norm(self.hidden(x)))))
        return out
