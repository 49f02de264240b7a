"""Swin transformers (Liu et al., ICCV 2021) from timm's modules, at any picture size.

Shape letters: R rows, H W map, C channels, n windows of one map, w² tokens of one window, p prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import timm
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.backbone import Backbone
from garnish.backbones.blocks import Branch, FeatureInfo, Residual, Stage
from garnish.backbones.timm_models import create_timm, name_sources
from garnish.backbones.windows import ShiftedWindows, gathered, unseen_by_prompts
from garnish.context import ForwardContext
from garnish.errors import OptionError


class Swin(Backbone):
    """Four stages of shifted-window blocks; maps are read before the next stage's merging."""

    @classmethod
    def names(cls) -> list[str]:
        """Names known to timm (``timm.list_models(module="swin_transformer")``)."""
        return list(timm.list_models(module="swin_transformer"))

    @classmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, Any]) -> Swin:
        """Build ``name``; ``options`` are timm's constructor arguments (``embed_dim``, ``depths``, …)."""
        # full windows always: timm's own shrinking of windows at build time is wrong at any other size
        fixed = {"strict_img_size": False, "always_partition": True}
        swin, licence, source = create_timm(name, weights, options, fixed, checkpoint_filter_fn)
        if type(swin) is not SwinTransformer:
            raise OptionError(f"{name}: {type(swin).__name__} is not a Swin of the first version; use swin_*")
        stages, features = [], []
        for i, layer in enumerate(swin.layers):
            blocks = [
                {
                    "attn": Residual(Branch(b.norm1, _windows(b), nn.Identity(), b.drop_path1), takes=("place",)),
                    "mlp": Residual(Branch(b.norm2, b.mlp, nn.Identity(), b.drop_path2)),
                }
                for b in layer.blocks
            ]
            stages.append(Stage(layer.downsample, blocks, nn.Identity()))
            features.append(FeatureInfo(swin.feature_info[i]["num_chs"], swin.feature_info[i]["reduction"]))
        backbone = cls(
            name=name,
            options=options,
            stem=_Stem(swin.patch_embed),
            stages=stages,
            features=features,
            mean=swin.pretrained_cfg["mean"],
            std=swin.pretrained_cfg["std"],
            multiple=int(features[-1].stride),
            licence=licence,
            weights_source=source,
        )
        backbone.most_prompts = 4 * math.prod(swin.layers[0].blocks[0].window_size)
        name_sources(backbone, swin)
        return backbone

    def _enter(self, stage: Stage, x: Tensor, ctx: ForwardContext) -> tuple[Tensor, tuple[int, int]]:
        if x.ndim == 4:
            return super()._enter(stage, x, ctx)
        x, grid = gathered(x, ctx.grid, ctx.num_prefix)
        merging: Any = stage.enter
        return merging.reduction(merging.norm(x)), grid


class _Stem(nn.Module):
    """Non-overlapping patch embedding."""

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.patch_embed = patch_embed

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Any]]:
        """(I, 3, H, W) → (I, H/4, W/4, C)."""
        x = self.patch_embed(images)
        return x, (x.shape[1], x.shape[2]), {}


class BiasedAttention(nn.Module):
    """Attention within windows, with a trained bias for each pair of relative positions (eq. 4)."""

    def __init__(self, attn: Any) -> None:
        """Take over the parameters of a timm ``WindowAttention``."""
        super().__init__()
        self.num_heads: int = attn.num_heads
        self.scale: float = attn.scale
        self.relative_position_bias_table: nn.Parameter = attn.relative_position_bias_table
        self.register_buffer("index", attn.relative_position_index, persistent=False)
        self.qkv = attn.qkv
        self.attn_drop = attn.attn_drop
        self.proj = attn.proj
        self.proj_drop = attn.proj_drop

    def forward(self, x: Tensor, mask: Tensor | None = None, prompts: int = 0) -> Tensor:
        """(R·n, p + w², C) and a mask (n, w², w²) to be added to the logits → (R·n, p + w², C)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        index: Tensor = self.index  # type: ignore[assignment]
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)
        bias = unseen_by_prompts(bias, prompts)[None]
        if mask is not None:
            bias = (bias + unseen_by_prompts(mask, prompts)[:, None]).repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        mixed: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return mixed


def _windows(block: Any) -> ShiftedWindows:
    return ShiftedWindows(BiasedAttention(block.attn), block.window_size, block.shift_size)
