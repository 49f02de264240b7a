"""PVT v2, a pyramid of transformer stages (Wang et al., PVT v2, Computational Visual Media 2022), from timm's modules.

Shape letters: I pictures, R rows, H W map, C channels. The stream is channels-last maps (R, H, W, C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from timm.models.pvt_v2 import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.architecture import Depths, Flag, Rate, StageHeads, Widths, check_lengths, read_architecture
from garnish.backbones.backbone import Small
from garnish.backbones.given_weights import Weights
from garnish.backbones.timm_models import TimmTrunk, create_timm
from garnish.engine.blocks import Branch, FeatureInfo, Residual, Stage
from garnish.errors import OptionError


@final
@dataclass(frozen=True, kw_only=True)
class PVTv2Options:
    """The architecture of a PVT v2, one entry a stage; what is None is as the name says.

    Attributes:
        embed_dims: channels.
        depths: number of blocks.
        num_heads: attention heads, a divisor of the channels.
        sr_ratios: by how much a side of the map is shortened that is attended to.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: stochastic depth of the last block in training, growing linearly from 0 at the first.
    """

    embed_dims: Widths | None = None
    depths: Depths | None = None
    num_heads: StageHeads | None = None
    sr_ratios: StageHeads | None = None
    qkv_bias: Flag | None = None
    drop_path_rate: Rate | None = None


@final
class PVTv2(TimmTrunk):
    """Four stages of attention to a shortened map and MLPs with a depthwise convolution; a norm ends each stage."""

    timm_module = "pvt_v2"
    small: ClassVar[Small] = {
        "pvt": ("pvt_v2_b0", {"embed_dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4]})
    }

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, Any]) -> PVTv2:
        """Build ``name``; ``options``: fields of :class:`PVTv2Options`."""
        arch = read_architecture(name, options, PVTv2Options)
        check_lengths(name, arch, "embed_dims", "depths", "num_heads", "sr_ratios")
        net, licence, source = create_timm(name, weights, arch, {}, checkpoint_filter_fn)
        stages = []
        for stage in net.stages:
            if any(block.attn.pool is not None for block in stage.blocks):
                raise OptionError(f"{name}: attention to pooled maps is not supported; use one without _li")
            enter = nn.Identity() if stage.downsample is None else _Embed(stage.downsample)
            stages.append(Stage(enter, [_residuals(block) for block in stage.blocks], stage.norm))
        features = [FeatureInfo(info["num_chs"], info["reduction"]) for info in net.feature_info]
        return cls.assemble(
            net,
            name=name,
            options=options,
            stem=_Stem(net.patch_embed),
            stages=stages,
            features=features,
            multiple=int(features[-1].stride),
            licence=licence,
            weights_source=source,
        )


def _residuals(block: Any) -> dict[str, nn.Module]:
    return {
        "attn": Residual(Branch(block.norm1, _Attention(block.attn), nn.Identity(), block.drop_path1)),
        "mlp": Residual(Branch(block.norm2, _Mlp(block.mlp), nn.Identity(), block.drop_path2)),
    }


class _Embed(nn.Module):
    """A convolution with overlapping patches, then a norm: what leads into a stage."""

    def __init__(self, embed: Any) -> None:
        super().__init__()
        self.proj = embed.proj
        self.norm = embed.norm

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H', W', C')."""
        out: Tensor = self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return out


class _Stem(nn.Module):
    """The same from pictures."""

    def __init__(self, embed: Any) -> None:
        super().__init__()
        self.patch_embed = _Embed(embed)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Any]]:
        """(I, 3, H, W) → (I, H/4, W/4, C), its grid, no extras."""
        x = self.patch_embed(images.permute(0, 2, 3, 1))
        return x, (x.shape[1], x.shape[2]), {}


class _Attention(nn.Module):
    """Attention to a map that a convolution shortens; its norm may not be called ``norm``, as the branch's is."""

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.num_heads: int = attn.num_heads
        self.q, self.kv, self.proj = attn.q, attn.kv, attn.proj
        self.sr = nn.Identity() if attn.sr is None else attn.sr
        self.sr_norm = nn.Identity() if attn.norm is None else attn.norm
        self.attn_drop, self.proj_drop = attn.attn_drop, attn.proj_drop

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H, W, C)."""
        rows, height, width, channels = x.shape
        q = self.q(x).reshape(rows, height * width, self.num_heads, -1).transpose(1, 2)
        short = self.sr_norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        k, v = self.kv(short).reshape(rows, -1, 2, self.num_heads, q.shape[-1]).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        mixed: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).reshape(rows, height, width, channels)))
        return mixed


class _Mlp(nn.Module):
    """fc1 → depthwise 3×3 → activation → fc2."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.fc1, self.dwconv, self.act, self.fc2, self.drop = mlp.fc1, mlp.dwconv, mlp.act, mlp.fc2, mlp.drop

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H, W, C)."""
        hidden = self.dwconv(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.drop(self.fc2(self.drop(self.act(hidden))))
        return out
