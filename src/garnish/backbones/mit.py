"""MiT B0 to B5, the encoder of SegFormer (Xie et al., NeurIPS 2021), written from the paper.

Shape letters: R rows, H W grid, C channels. The stream is channels-last maps (R, H, W, C).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial
from importlib.resources import as_file, files
from typing import ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.backbone import Backbone, Small
from garnish.backbones.given_weights import GivenWeights, Weights, source_of
from garnish.backbones.name_prefixes import said_of
from garnish.backbones.segformer import dialects
from garnish.backbones.segformer.config import check_architecture, segformer_config
from garnish.backbones.segformer.mit_options import PUBLISHED, SIZES, STRIDES, MiTOptions, read_mit
from garnish.backbones.weights import check_floats, open_weights
from garnish.engine.blocks import Branch, FeatureInfo, Residual, Stage
from garnish.errors import OptionError, showable

NVIDIA_LICENCE = "NVIDIA Source Code License for SegFormer (non-commercial: research or evaluation only)"

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
        return [*SIZES, BUNDLED]

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> MiT:
        """Build ``name``.

        Args:
            name: one of :meth:`names`.
            weights: None or False: random (for ``garnish_b0`` only False); True: NVIDIA's from the Hub
                (non-commercial licence), trained on ImageNet, for segformer names on ADE20K; else a file, a folder or
                a Hub id, or the tensors of a model, with the names of NVlabs, transformers 4 or 5, or our own.
            options: fields of :class:`MiTOptions`.

        Raises:
            OptionError: an unknown name or option, or a value out of range.
            WeightsError: weights that do not fit or cannot be read.
        """
        if name == BUNDLED:
            return cls._bundled(weights, options)
        arch = read_mit(name, options)
        given = PUBLISHED[name] if weights is True else None if weights is False else weights
        dialect = dialects.GARNISH
        if given is not None:
            held, source = open_weights(given), str(given)
            dialect, prefix = dialects.encoder_dialect(held.shapes, source)
            if wrapper := prefix.removesuffix(dialect.prefix):
                said = said_of(wrapper, held.shapes, f"{name}: weights {source}")
                warnings.warn(showable(said), stacklevel=2)
            check_architecture(segformer_config(held.file), arch.num_heads, arch.sr_ratios, source)
        norm_eps = arch.norm_eps or dialect.norm_eps
        embed_eps = arch.embed_norm_eps or arch.norm_eps or dialect.embed_norm_eps
        told = dict(options)
        if (norm_eps, embed_eps) != (dialects.GARNISH.norm_eps, dialects.GARNISH.embed_norm_eps):
            # The same tensors, saved under our own names, must compute the same when read again.
            told |= {"norm_eps": norm_eps, "embed_norm_eps": embed_eps}
        build = partial(cls._of, name, told, arch, norm_eps, embed_eps)
        if given is None:
            return build()
        with torch.device("meta"):
            _fitting(build(), held.shapes, source)  # before anything takes memory or time
        backbone = build()
        read = _fitting(backbone, held.read(), source)
        with torch.no_grad():
            for slot, module, leaf in backbone.named_slots():
                getattr(module, leaf).copy_(read[slot])
        backbone.weights_source = source_of(given)
        backbone.licence = _licence(source, held.licence, dialect)
        return backbone

    @classmethod
    def _of(cls, name: str, options: Mapping[str, object], arch: MiTOptions, norm_eps: float, embed_eps: float) -> MiT:
        """With random weights."""
        backbone = cls(
            name=name,
            options=options,
            stem=PictureStem(),
            stages=_stages(arch, norm_eps, embed_eps),
            features=[FeatureInfo(c, float(s)) for c, s in zip(arch.embed_dims, STRIDES, strict=True)],
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            multiple=math.lcm(STRIDES[-1], *(s * r for s, r in zip(STRIDES, arch.sr_ratios, strict=True))),
        )
        backbone.apply(_init)
        backbone.source_names = {slot: dialects.NVLABS.names_of(slot)[0] for slot, _, _ in backbone.named_slots()}
        return backbone

    @classmethod
    def _bundled(cls, weights: Weights, options: Mapping[str, object]) -> MiT:
        if options or isinstance(weights, str | GivenWeights):
            raise OptionError(f"{BUNDLED} comes with its own weights and sizes; use mit_b0 for other ones")
        with as_file(files("garnish") / "assets" / f"{BUNDLED}.safetensors") as path:
            backbone = cls.create("mit_b0", None if weights is False else str(path), {})
        backbone.name = BUNDLED
        if weights is not False:
            backbone.weights_source = "bundled"
        return backbone


def _fitting(backbone: MiT, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Slot → tensor of a file; raises WeightsError unless names, shapes and kinds of number fit."""
    own = {slot: getattr(module, leaf) for slot, module, leaf in backbone.named_slots()}
    read = dialects.read_dialect(tensors, {slot: tensor.shape for slot, tensor in own.items()}, source)
    for slot, tensor in own.items():
        check_floats(backbone.source_names[slot], read[slot], tensor, source)
    return read


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
