"""Attention within windows of a map: rolling, padding, cutting and what may see what; shared by the Swin families.

Shape letters: R rows, H W map, C channels, n windows of one map, w² tokens of one window.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from timm.models.swin_transformer import window_partition
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.backbone import Backbone
from garnish.backbones.blocks import FeatureInfo, Stage
from garnish.backbones.timm_models import name_sources
from garnish.context import ForwardContext


class ShiftedWindows(nn.Module):
    """Attention within windows of a map that is rolled first; windows of one row stay together.

    Windows keep their size at every picture size. A map that they do not divide is padded with zeros after rolling,
    and the padded tokens take part, as in the papers' code.
    """

    def __init__(self, attention: nn.Module, size: tuple[int, int], shift: tuple[int, int], apart: float) -> None:
        """Cut windows of ``size`` from a map rolled by ``shift`` for ``attention(tokens, mask=…)``.

        ``apart`` is added to the logits of tokens that must not see each other.
        """
        super().__init__()
        self.apart = apart
        self.window = attention
        self.size = size
        self.full_shift = shift

    def forward(self, x: Tensor, place: tuple[tuple[int, int], int] = ((0, 0), 0)) -> Tensor:
        """(R, H, W, C) → (R, H, W, C), or tokens (R, p + H·W, C) with p prompts first → the same.

        Prompts join every window and have neither position nor mask (Jia et al., VPT, ECCV 2022); what the windows make
        of them is averaged. ``place``: the grid (H, W) and p.
        """
        grid, count = place
        prompts: Tensor | None = None
        if x.ndim == 3:
            prompts, x = x[:, :count], x[:, count:].reshape(x.shape[0], *grid, x.shape[2])
        _, height, width, _ = x.shape
        (wh, ww) = self.size
        # a side that one window covers is not shifted (the rule of the papers' code, taken per picture)
        sh = self.full_shift[0] if height > wh else 0
        sw = self.full_shift[1] if width > ww else 0
        grid = (height, width)
        to_windows, to_map = window_order(grid, self.size, (sh, sw), x.device)
        tokens = x.flatten(1, 2)
        if to_windows.shape[0] > height * width:
            tokens = F.pad(tokens, (0, 0, 0, 1))  # the token that stands for all of the padding
        # one copy each way: rolling, padding and cutting one after the other are four
        windows = tokens.index_select(1, to_windows).reshape(-1, wh * ww, x.shape[3])  # (R·n, w², C)
        padded = (height + -height % wh, width + -width % ww)
        mask = region_mask(padded, self.size, (sh, sw), x, self.apart) if sh or sw else None
        if prompts is None:
            windows = self.window(windows, mask=mask)
        else:
            num_windows = windows.shape[0] // prompts.shape[0]
            # the windows of one row lie together, so its prompts are repeated in place, not as a whole batch
            windows = torch.cat([prompts.repeat_interleave(num_windows, 0), windows], 1)
            windows = self.window(windows, mask=mask, prompts=count)
            prompts = windows[:, :count].reshape(-1, num_windows, count, windows.shape[2]).mean(1)
            windows = windows[:, count:]
        # task streams may begin in the window, so more rows may leave it than came
        x = windows.reshape(-1, to_windows.shape[0], windows.shape[2]).index_select(1, to_map)
        return x.view(-1, *grid, x.shape[2]) if prompts is None else torch.cat([prompts, x], 1)


def window_order(
    grid: tuple[int, int], size: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where each token of the windows of a rolled and padded map comes from, and the way back.

    Args:
        grid: (H, W) of the map.
        size: of a window.
        shift: by how much the map is rolled up and left.
        device: of the map.

    Returns:
        (n·w²,) int64: the number of each window token's map token, H·W for padding; (H·W,) int64: the way back.
    """
    (height, width), (wh, ww), (sh, sw) = grid, size, shift
    numbers = torch.arange(height * width, device=device).view(height, width)
    rolled = torch.roll(numbers, (-sh, -sw), (0, 1)) if sh or sw else numbers
    padded = F.pad(rolled, (0, -width % ww, 0, -height % wh), value=height * width)
    high, wide = padded.shape[0] // wh, padded.shape[1] // ww
    to_windows = padded.view(high, wh, wide, ww).transpose(1, 2).flatten()
    row = (torch.arange(height, device=device) - sh) % height
    column = (torch.arange(width, device=device) - sw) % width
    rows = (row // wh * wide * wh + row % wh) * ww
    columns = column // ww * wh * ww + column % ww
    return to_windows, (rows[:, None] + columns).flatten()


def unseen_by_prompts(table: Tensor, prompts: int, value: float = 0.0) -> Tensor:
    """A bias or mask over pairs of a window's tokens, (…, w², w²) → (…, p + w², p + w²), ``value`` for prompts.

    It is what a pair has of which the trunk learned nothing: 0 of a mask and of a table.
    """
    return F.pad(table, (prompts, 0, prompts, 0), value=value) if prompts else table


def gathered(x: Tensor, grid: tuple[int, int], prompts: int) -> tuple[Tensor, tuple[int, int]]:
    """What patch merging reads, of tokens with prompts: (R, p + H·W, C) → (R, p + ⌈H/2⌉·⌈W/2⌉, 4C) and the new grid.

    Four neighbours side by side, in timm's order; a prompt four times (Jia et al., VPT, ECCV 2022, for Swin).
    """
    rows, _, channels = x.shape
    (height, width), own = grid, x[:, :prompts]
    patches = x[:, prompts:].reshape(rows, height, width, channels)
    patches = F.pad(patches, (0, 0, 0, width % 2, 0, height % 2))
    high, wide = (height + 1) // 2, (width + 1) // 2
    patches = patches.reshape(rows, high, 2, wide, 2, channels).permute(0, 1, 3, 4, 2, 5)
    return torch.cat([own.repeat(1, 1, 4), patches.reshape(rows, high * wide, 4 * channels)], 1), (high, wide)


class Windowed(Backbone):
    """What the two versions of Swin share: how a trunk is put together from timm's, and merging with prompts."""

    @classmethod
    def assemble(
        cls,
        swin: Any,
        residuals: Callable[[Any], dict[str, nn.Module]],
        *,
        name: str,
        options: Mapping[str, Any],
        licence: str,
        source: str,
    ) -> Self:
        """A trunk from timm's ``swin``; ``residuals`` makes the two of a block."""
        stages, features = [], []
        for layer, info in zip(swin.layers, swin.feature_info, strict=True):
            stages.append(Stage(layer.downsample, [residuals(block) for block in layer.blocks], nn.Identity()))
            features.append(FeatureInfo(info["num_chs"], info["reduction"]))
        backbone = cls(
            name=name,
            options=options,
            stem=PatchStem(swin.patch_embed),
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

    @staticmethod
    @abstractmethod
    def reduce(merging: Any, x: Tensor) -> Tensor:
        """Norm and reduction of a patch merging, in the family's order: (R, N, 4C) → (R, N, 2C)."""

    def enter(self, stage: Stage, x: Tensor, ctx: ForwardContext) -> tuple[Tensor, tuple[int, int]]:
        """Patch merging of a stream with prompts too."""
        if x.ndim == 4:
            return super().enter(stage, x, ctx)
        x, grid = gathered(x, ctx.grid, ctx.num_prefix)
        return self.reduce(stage.enter, x), grid


class PatchStem(nn.Module):
    """Non-overlapping patch embedding, with a norm where the family has one."""

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.patch_embed = patch_embed

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Any]]:
        """(I, 3, H, W) → (I, H/4, W/4, C), its grid, no extras."""
        x = self.patch_embed(images)
        return x, (x.shape[1], x.shape[2]), {}


def region_mask(
    padded: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], like: Tensor, value: float
) -> Tensor:
    """(n, w², w²): ``value`` between tokens that the roll brought together from opposite borders, else 0."""
    rows = _regions(padded[0], window[0], shift[0], like)
    columns = _regions(padded[1], window[1], shift[1], like)
    region = (rows[:, None] * 3 + columns[None, :])[None, :, :, None]
    tokens = window_partition(region, window).flatten(1)  # (n, w²)
    apart = tokens[:, None, :] != tokens[:, :, None]
    return torch.zeros_like(apart, dtype=like.dtype).masked_fill(apart, value)


def _regions(length: int, window: int, shift: int, like: Tensor) -> Tensor:
    """Number of the region (0, 1 or 2) of each coordinate along one side of a rolled map."""
    at = torch.arange(length, device=like.device)
    if not shift:
        return torch.zeros_like(at)
    return (at >= length - window).to(at.dtype) + (at >= length - shift).to(at.dtype)
