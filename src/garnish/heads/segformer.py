"""SegFormer's all-MLP decoder (Xie et al., NeurIPS 2021, eq. 4).

Shape letters: B pictures, C channels, H W feature grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.weights import check_floats
from garnish.checking.bounds import Channels, Dropout
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError, WeightsError
from garnish.heads.head import Head
from garnish.heads.segformer_names import COUNTER, read_decoder


@dataclass(frozen=True, kw_only=True)
class SegFormerHead(Head):
    """Each map is projected to ``channels`` and resized to the finest grid; all are concatenated, fused, classified.

    Attributes:
        channels: width of the decoder (256 for B0 and B1, 768 for B2 to B5 in the paper).
        dropout: probability that a channel of the fused map is dropped in training.
        norm: a LayerNorm over channels of each map, for trunks whose maps are not normalised (Swin); published
            parameter counts of adapters on Swin-T include one for each task and stage.
        init: "random", or "published": the decoder stored with the encoder in the trunk's weights (of a finished
            SegFormer); its width must be ``channels``; its classifier is used if the number of outputs agrees.

    Example:
        >>> trunk, tasks = gn.backbone("garnish_b0"), {"depth": gn.Depth()}
        >>> model = gn.adapt(trunk, gn.Frozen(), tasks, gn.SegFormerHead(channels=16))
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())
        9329
    """

    pyramid: ClassVar[bool] = True

    channels: Channels = 256
    dropout: Dropout = 0.1
    norm: bool = False
    init: Literal["random", "published"] = "random"

    def __post_init__(self) -> None:
        if self.init == "published" and self.norm:
            raise OptionError("SegFormerHead: the published decoder has no norm in front; set norm=False")

    def build(self, features: Sequence[FeatureInfo], out_channels: int) -> SegFormerDecoder:
        """The decoder for these feature maps; raises :class:`OptionError` if there are no features or no outputs."""
        if not features or out_channels < 1:
            raise OptionError(f"SegFormerHead: needs features and outputs, got {len(features)} and {out_channels}")
        return SegFormerDecoder(features, out_channels, self.channels, self.dropout, self.norm)

    def begin(self, module: nn.Module, source: str) -> tuple[Head, str]:
        """With ``init="published"``, fill the decoder from the trunk's weights file; see :meth:`Head.begin`."""
        if self.init == "random":
            return self, ""
        if source in ("random", "bundled"):
            raise OptionError(
                f"SegFormerHead.init: published, but the trunk's weights are {source}; "
                "build it with those of a finished SegFormer"
            )
        assert isinstance(module, SegFormerDecoder)
        return replace(self, init="random"), fill_decoder(module, read_decoder(source), source)


class SegFormerDecoder(nn.Module):
    """(LayerNorm,) linear d_i→C per map, bilinear to the finest, concat, 1×1 4C→C + norm + ReLU, dropout, 1×1."""

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
        # The maps are never concatenated: a 1×1 convolution and upsampling commute, so each map is multiplied by its
        # columns of the weight at its own size. Equal up to rounding, a third of the work, a quarter of the memory.
        columns = self.fuse.weight.chunk(len(features), dim=1)[::-1]
        fused: Tensor | None = None
        for x, norm, project, weight in zip(features, self.input_norms, self.projections, columns, strict=True):
            # contiguous, as for other layouts torch's order of summation depends on whether the weight is trained
            y = F.conv2d(project(norm(x.permute(0, 2, 3, 1).contiguous())).permute(0, 3, 1, 2), weight)
            fused = y if fused is None else fused + F.interpolate(y, size, mode="bilinear", align_corners=False)
        out: Tensor = self.classifier(self.dropout(F.relu(self.norm(fused))))
        return out


def fill_decoder(decoder: SegFormerDecoder, published: Mapping[str, Tensor], source: str) -> str:
    """Copy the tensors of a published SegFormer decoder into ours.

    Args:
        decoder: filled in place; its classifier is left as it is if the published one has another number of outputs.
        published: by our names, as :func:`garnish.heads.segformer_names.read_decoder` gives them.
        source: where they are from, for messages.

    Returns:
        One line: which parts were copied, which are new.

    Raises:
        OptionError: another width. WeightsError: tensors of other shapes; then nothing is copied.
    """
    own = decoder.state_dict()
    wide, width = published["classifier.weight"].shape[0], published["fuse.weight"].shape[0]
    if own["fuse.weight"].shape[0] != width:
        raise OptionError(
            f"SegFormerHead.channels: {own['fuse.weight'].shape[0]}, but the decoder in {source} has {width}; "
            f"set channels to {width}"
        )
    outputs = own["classifier.weight"].shape[0]
    kept = {n: t for n, t in published.items() if outputs == wide or not n.startswith("classifier.")}
    for name in dict.fromkeys([*own, *published]):
        compared = outputs == wide or not name.startswith("classifier.")
        if compared and name != COUNTER and _shape(own.get(name)) != _shape(published.get(name)):
            raise WeightsError(
                f"{source}: {name} of its decoder is {_shape(published.get(name))}, but {_shape(own.get(name))} on "
                "this trunk; give the weights of a finished SegFormer of this size"
            )
    with torch.no_grad():
        for name, tensor in kept.items():
            check_floats(name, tensor, own[name], source)
            own[name].copy_(tensor)
    parts = list(dict.fromkeys(name.split(".")[0] for name in published))
    if outputs == wide:
        return f"decoder of {source}: kept {', '.join(parts)} ({wide} outputs)"
    parts.remove("classifier")
    return f"decoder of {source}: kept {', '.join(parts)}; new: classifier ({outputs} outputs, {wide} there)"


def _shape(tensor: Tensor | None) -> str:
    return "not there" if tensor is None else str(tuple(tensor.shape))
