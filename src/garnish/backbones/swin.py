"""Swin transformers (Liu et al., ICCV 2021) from timm's modules, at any picture size.

Shape letters: R rows, H W map, C channels, n windows of one map, w² tokens of one window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.backbone import Backbone, Branch, FeatureInfo, Residual, Stage
from garnish.backbones.timm_models import create_timm, name_sources
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
                    "attn": Residual(Branch(b.norm1, _ShiftedWindows(b), nn.Identity(), b.drop_path1)),
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
        name_sources(backbone, swin)
        return backbone


class _Stem(nn.Module):
    """Non-overlapping patch embedding."""

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.patch_embed = patch_embed

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Any]]:
        """(I, 3, H, W) → (I, H/4, W/4, C)."""
        x = self.patch_embed(images)
        return x, (x.shape[1], x.shape[2]), {}


class _ShiftedWindows(nn.Module):
    """Attention within windows of a map that is rolled by ``shift`` first; windows of one row stay together."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.window = block.attn
        self.size: tuple[int, int] = block.window_size
        self.full_shift: tuple[int, int] = block.shift_size

    def forward(self, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H, W, C)."""
        _, height, width, _ = x.shape
        (wh, ww) = self.size
        # a side that one window covers is not shifted (the rule of the paper's code, taken per picture)
        sh = self.full_shift[0] if height > wh else 0
        sw = self.full_shift[1] if width > ww else 0
        if sh or sw:
            x = torch.roll(x, shifts=(-sh, -sw), dims=(1, 2))
        pad_h, pad_w = -height % wh, -width % ww
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
        padded_h, padded_w = height + pad_h, width + pad_w
        windows = window_partition(x, self.size).flatten(1, 2)  # (R·n, w², C)
        mask = self._mask(padded_h, padded_w, sh, sw, x) if sh or sw else None
        windows = self.window(windows, mask=mask).unflatten(1, self.size)
        x = window_reverse(windows, self.size, padded_h, padded_w)[:, :height, :width]
        if sh or sw:
            x = torch.roll(x, shifts=(sh, sw), dims=(1, 2))
        return x

    def _mask(self, height: int, width: int, sh: int, sw: int, like: Tensor) -> Tensor:
        """(n, w², w²): -100 between tokens that the roll brought together from opposite borders, else 0."""
        rows = _regions(height, self.size[0], sh, like)
        columns = _regions(width, self.size[1], sw, like)
        region = (rows[:, None] * 3 + columns[None, :])[None, :, :, None]
        tokens = window_partition(region, self.size).flatten(1)  # (n, w²)
        apart = tokens[:, None, :] != tokens[:, :, None]
        return torch.zeros_like(apart, dtype=like.dtype).masked_fill(apart, -100.0)


def _regions(length: int, window: int, shift: int, like: Tensor) -> Tensor:
    """Number of the region (0, 1 or 2) of each coordinate along one side of a rolled map."""
    at = torch.arange(length, device=like.device)
    if not shift:
        return torch.zeros_like(at)
    return (at >= length - window).to(at.dtype) + (at >= length - shift).to(at.dtype)
