"""MiT B0 to B5, the encoder of SegFormer (Xie et al., NeurIPS 2021), written from the paper.

Shape letters: R rows, H W grid, C channels. The stream is channels-last maps (R, H, W, C).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Annotated, ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.backbone import Backbone, Small
from garnish.backbones.name_prefixes import said_of
from garnish.backbones.segformer import dialects
from garnish.backbones.segformer.config import check_architecture, segformer_config
from garnish.backbones.segformer.finished_names import FINISHED
from garnish.backbones.weights import check_floats, read_weights, weights_file
from garnish.checking.plain_data import Reading, Within, read_as
from garnish.engine.blocks import Branch, FeatureInfo, Residual, Stage
from garnish.errors import OptionError, showable, suggest

NVIDIA_LICENCE = "NVIDIA Source Code License for SegFormer (non-commercial: research or evaluation only)"

_STRIDES = (4, 8, 16, 32)
_WIDE = (64, 128, 320, 512)
#: name → (embed_dims, depths); table 6 of the paper
_SIZES = {
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": (_WIDE, (2, 2, 2, 2)),
    "mit_b2": (_WIDE, (3, 4, 6, 3)),
    "mit_b3": (_WIDE, (3, 4, 18, 3)),
    "mit_b4": (_WIDE, (3, 8, 27, 3)),
    "mit_b5": (_WIDE, (3, 6, 40, 3)),
}
#: name → Hub id of its published weights: the encoder alone, or with the decoder of a finished SegFormer
_PUBLISHED = {name: f"nvidia/{name.replace('_', '-')}" for name in _SIZES} | FINISHED
_SIZES |= {name: _SIZES[name.replace("segformer", "mit")] for name in FINISHED}


_Stages = Annotated[
    tuple[int, int, int, int], Within(f"{len(_STRIDES)} positive integers", lambda entries: min(entries) >= 1)
]
_Positive = Annotated[float, Within("a number above 0", lambda value: 0 < value < math.inf)]


@dataclass(frozen=True, kw_only=True)
class MiTOptions:
    """The architecture of one MiT; each sequence has one entry per stage, of which there are four.

    Attributes:
        embed_dims: channels.
        depths: number of blocks.
        num_heads: number of attention heads.
        sr_ratios: spatial reduction of keys and values: side of the patches that are reduced to one token.
        mlp_ratio: hidden width of the Mix-FFN, divided by the stage's channels.
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
        norm_eps: epsilon of the norms of blocks and stages; None: that of the weights' dialect.
        embed_norm_eps: epsilon of the norms after patch embeddings and reductions; None: ``norm_eps`` if that
            is given, else that of the weights' dialect.
    """

    embed_dims: _Stages
    depths: _Stages
    num_heads: _Stages = (1, 2, 5, 8)
    sr_ratios: _Stages = (8, 4, 2, 1)
    mlp_ratio: _Positive = 4.0
    drop_path: Annotated[float, Within("a number from 0 to below 1", lambda rate: 0 <= rate < 1)] = 0.1
    norm_eps: _Positive | None = None
    embed_norm_eps: _Positive | None = None


#: Name of the backbone whose weights come with the package; assets/garnish_b0.md says how they were made.
BUNDLED = "garnish_b0"


class PictureStem(nn.Module):
    """A stem that only changes the layout, as MiT's first patch embedding belongs to its first stage."""

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Tensor | None]]:
        """(I, 3, H, W) → the stream (I, H, W, 3), its grid, no extras."""
        return images.permute(0, 2, 3, 1), (images.shape[2], images.shape[3]), {}


class OverlapPatchEmbed(nn.Module):
    """Convolution with overlapping windows, then a norm (section 3.1 of the paper)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, ⌈H/stride⌉, ⌈W/stride⌉, channels)."""
        out: Tensor = self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return out


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a map reduced by ``sr_ratio`` per side (eq. 1 and 2)."""

    def __init__(self, channels: int, num_heads: int, sr_ratio: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.sr: nn.Module = nn.Identity()
        self.sr_norm: nn.Module = nn.Identity()
        if sr_ratio > 1:
            self.sr = nn.Conv2d(channels, channels, sr_ratio, stride=sr_ratio)
            self.sr_norm = nn.LayerNorm(channels, eps=eps)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H, W, C)."""
        rows, height, width, channels = x.shape
        size = channels // self.num_heads
        q = self.q(x).reshape(rows, height * width, self.num_heads, size).transpose(1, 2)
        reduced = self.sr_norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        k, v = self.kv(reduced).reshape(rows, -1, 2, self.num_heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(rows, height, width, channels))
        return mixed


class MixFfn(nn.Module):
    """fc1 → depthwise 3×3 → GELU → fc2; the convolution replaces a position embedding (eq. 3)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H, W, C)."""
        hidden = self.dw(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.fc2(self.act(hidden))
        return out


class MiT(Backbone):
    """SegFormer's hierarchical encoder with four maps at strides 4, 8, 16 and 32."""

    small: ClassVar[Small] = {
        "mit": ("mit_b0", {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]})
    }

    @classmethod
    def names(cls) -> list[str]:
        """mit_b0 … mit_b5 (encoders), segformer_b0 … segformer_b5 (the encoders of complete SegFormers, whose decoder
        :func:`garnish.finished` and ``SegFormerHead(init="published")`` read), and ``garnish_b0``: a B0 with the
        weights that come with the package.
        """
        return [*_SIZES, BUNDLED]

    @classmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, object]) -> MiT:
        """Build ``name``.

        Args:
            name: one of :meth:`names`.
            weights: None or False: random (for ``garnish_b0`` only False); True: NVIDIA's from the Hub
                (non-commercial licence), trained on ImageNet, for segformer names on ADE20K; else a file, a folder or
                a Hub id, with the tensor names of NVlabs, transformers 4 or 5, or our own.
            options: fields of :class:`MiTOptions`.

        Raises:
            OptionError: an unknown name or option, or a value out of range.
            WeightsError: weights that do not fit or cannot be read.
        """
        if name == BUNDLED:
            return cls._bundled(weights, options)
        arch = _checked(name, options)
        source = _PUBLISHED[name] if weights is True else weights or None
        dialect = dialects.GARNISH
        tensors: dict[str, Tensor] = {}
        licence: str | None = None
        if source is not None:
            file = str(weights_file(source))
            tensors, licence = read_weights(file)
            dialect, prefix = dialects.encoder_dialect(tensors, source)
            if wrapper := prefix.removesuffix(dialect.prefix):
                said = said_of(wrapper, tensors, f"{name}: weights {source}")
                warnings.warn(showable(said), stacklevel=2)
            check_architecture(segformer_config(file), arch.num_heads, arch.sr_ratios, source)
        norm_eps = arch.norm_eps or dialect.norm_eps
        embed_eps = arch.embed_norm_eps or arch.norm_eps or dialect.embed_norm_eps
        given = dict(options)
        if (norm_eps, embed_eps) != (dialects.GARNISH.norm_eps, dialects.GARNISH.embed_norm_eps):
            # The same tensors, saved under our own names, must compute the same when read again.
            given |= {"norm_eps": norm_eps, "embed_norm_eps": embed_eps}
        backbone = cls(
            name=name,
            options=given,
            stem=PictureStem(),
            stages=_stages(arch, norm_eps, embed_eps),
            features=[FeatureInfo(c, float(s)) for c, s in zip(arch.embed_dims, _STRIDES, strict=True)],
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            multiple=math.lcm(_STRIDES[-1], *(s * r for s, r in zip(_STRIDES, arch.sr_ratios, strict=True))),
        )
        backbone.apply(_init)
        slots = list(backbone.named_slots())
        backbone.source_names = {slot: dialects.NVLABS.names_of(slot)[0] for slot, _, _ in slots}
        if source is not None:
            wanted = {slot: getattr(module, leaf).shape for slot, module, leaf in slots}
            read = dialects.read_dialect(tensors, wanted, source)
            with torch.no_grad():
                for slot, module, leaf in slots:
                    check_floats(backbone.source_names[slot], read[slot], getattr(module, leaf), source)
                    getattr(module, leaf).copy_(read[slot])
            backbone.weights_source = source
            backbone.licence = _licence(source, licence, dialect)
        return backbone

    @classmethod
    def _bundled(cls, weights: str | bool | None, options: Mapping[str, object]) -> MiT:
        if options or isinstance(weights, str):
            raise OptionError(f"{BUNDLED} comes with its own weights and sizes; use mit_b0 for other ones")
        with as_file(files("garnish") / "assets" / f"{BUNDLED}.safetensors") as path:
            backbone = cls.create("mit_b0", None if weights is False else str(path), {})
        backbone.name = BUNDLED
        if weights is not False:
            backbone.weights_source = "bundled"
        return backbone


def _licence(source: str, stated: str | None, dialect: dialects.Dialect) -> str:
    if source.lower().removeprefix("hf-hub:").startswith("nvidia/"):
        return NVIDIA_LICENCE
    if stated is not None:
        return stated
    if dialect is dialects.GARNISH:
        return "unknown (stated nowhere beside the weights)"
    return "unknown (stated nowhere beside the weights; NVIDIA's own MiT weights are non-commercial)"


def _stages(arch: MiTOptions, norm_eps: float, embed_eps: float) -> list[Stage]:
    total = sum(arch.depths)
    drop_rates = iter([arch.drop_path * i / max(total - 1, 1) for i in range(total)])
    stages, in_channels = [], 3
    for index, channels in enumerate(arch.embed_dims):
        kernel, stride = (7, 4) if index == 0 else (3, 2)
        hidden = int(channels * arch.mlp_ratio)
        blocks = []
        for _ in range(arch.depths[index]):
            rate = next(drop_rates)
            attn = EfficientAttention(channels, arch.num_heads[index], arch.sr_ratios[index], embed_eps)
            blocks.append(
                {
                    "attn": _residual(channels, attn, rate, norm_eps),
                    "mlp": _residual(channels, MixFfn(channels, hidden), rate, norm_eps),
                }
            )
        enter = OverlapPatchEmbed(in_channels, channels, kernel, stride, embed_eps)
        stages.append(Stage(enter, blocks, nn.LayerNorm(channels, eps=norm_eps)))
        in_channels = channels
    return stages


def _residual(channels: int, layer: nn.Module, rate: float, eps: float) -> Residual:
    drop_path = DropPath(rate) if rate > 0 else nn.Identity()
    return Residual(Branch(nn.LayerNorm(channels, eps=eps), layer, nn.Identity(), drop_path))


def _init(module: nn.Module) -> None:
    """Linear layers N(0, 0.02²) truncated, convolutions N(0, 2/fan_out), biases 0; norms keep torch's 1 and 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _checked(name: str, options: Mapping[str, object]) -> MiTOptions:
    if name not in _SIZES:
        raise OptionError(f"unknown MiT {name!r}{suggest(name, _SIZES)}")
    sizes = dict(zip(("embed_dims", "depths"), _SIZES[name], strict=True))
    arch: MiTOptions = read_as(sizes | dict(options), MiTOptions, name, Reading())
    for channels, heads in zip(arch.embed_dims, arch.num_heads, strict=True):
        if channels % heads:
            raise OptionError(
                f"{name}: embed_dims {channels} is not a multiple of its num_heads {heads}; change either"
            )
    return arch
