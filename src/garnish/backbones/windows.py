"""Shifted-window attention, shared by the Swin families: padding, rolling, partitioning into windows, masking.

Shape letters: R rows, H W map, C channels, n windows of one map, w² tokens of one window.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.architecture import Depths, Flag, Mean, Rate, Ratio, Size, StageHeads, Std, Stride, Width, Window
from garnish.backbones.timm_models import StateFilter, TimmModule, TimmTrunk, noise_picture
from garnish.backbones.timm_reading import as_read, dropouts_of, rates_of, ratio_of, same_sides, windows_of
from garnish.checking.plain_data import Json
from garnish.engine.blocks import FeatureInfo, Stage
from garnish.engine.context import ForwardContext
from garnish.engine.open_sizes import at_most_one, cropped, folded, rounded_up


@dataclass(frozen=True, kw_only=True)
class WindowedOptions(ABC):  # noqa: B024 (fields alone)
    """What the Swin families take alike, one entry a stage where there are several; what is None is as the name says.

    Attributes:
        img_size: side of the pictures, or (height, width), that windows are made for, pixels; others are taken as well.
        patch_size: side of a patch, pixels.
        embed_dim: channels of the first stage; each stage doubles them.
        depths: number of blocks.
        num_heads: attention heads, a divisor of the stage's channels.
        window_size: side of a window, (height, width), or a side a stage, tokens.
        mlp_ratio: hidden width of an MLP, divided by the channels.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop_rate: dropout of attention weights in training.
        proj_drop_rate: dropout behind attention and MLP in training.
        drop_path_rate: stochastic depth of the last block in training, growing linearly from 0 at the first.
        drop_rate, global_pool: of the classifier, which a trunk has not; taken since older bundles may have them.
        mean, std: what red, green and blue in [0, 1] are normalised by.
    """

    img_size: Size | None = None
    patch_size: Stride | None = None
    embed_dim: Width | None = None
    depths: Depths | None = None
    num_heads: StageHeads | None = None
    window_size: Window | None = None
    mlp_ratio: Ratio | None = None
    qkv_bias: Flag | None = None
    attn_drop_rate: Rate | None = None
    proj_drop_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    drop_rate: Rate | None = None
    global_pool: Literal["", "avg", "avgmax", "max"] | None = None
    mean: Mean | None = None
    std: Std | None = None


#: Tokens of windows (R·n, w², C) → tokens of their maps (R, H·W, C).
Back = Callable[[Tensor], Tensor]


def _as_they_are(windows: Tensor) -> Tensor:
    return windows


class ShiftedWindows(nn.Module):
    """Attention within windows of a map that is padded, then rolled, then masked; windows of one row are adjacent.

    Windows keep their size at every picture size. A map that they do not divide is zero-padded below and to the right,
    rolled with the padding, and masked where rolling brought opposite borders together, as in the segmentation code of
    Liu et al. (ICCV 2021). Padded tokens take part; because of the trained bias their keys are not zero. timm 1.0 rolls
    first and pads afterwards but masks as if it had padded first: there opposite borders attend to each other at such
    sizes, and features differ from ours; where windows divide every map they agree.

    A side that one window covers is not shifted, regardless of the other side, as in timm. Other libraries differ
    here: transformers' Swin shifts neither side and shrinks windows to the side, unless it is set to
    partition always; the segmentation code always shifts and masks.
    """

    def __init__(self, attention: nn.Module, size: tuple[int, int], shift: tuple[int, int], apart: float) -> None:
        """Partition a map rolled by ``shift`` into windows of ``size`` and run ``attention(tokens, back, …)`` in each.

        ``back`` turns the tokens of windows into those of the map; the attention calls it before its last projection.
        ``apart`` is added to the logits of pairs of tokens that must not attend to each other.
        """
        super().__init__()
        self.apart = apart
        self.window = attention
        self.size = size
        self.full_shift = shift

    def forward(self, x: Tensor, place: tuple[tuple[int, int], int] = ((0, 0), 0)) -> Tensor:
        """(R, H, W, C) → (R, H, W, C), or tokens (R, p + H·W, C) with p prompts first → the same shape.

        Prompts join every window and have neither position nor mask (Jia et al., VPT, ECCV 2022); their outputs are
        averaged over the windows. ``place``: the grid (H, W) and p.
        """
        grid, count = place
        prompts: Tensor | None = None
        if x.ndim == 3:
            prompts, x = x[:, :count], folded(x[:, count:], x.shape[0], *grid)
        _, height, width, _ = x.shape
        grid = (height, width)
        (wh, ww), (sh, sw) = self.size, self.full_shift
        # no branch on a size, here and below, so that one exported graph serves all; a side of one window shifts by 0
        shift = (sh * at_most_one((height - 1) // wh), sw * at_most_one((width - 1) // ww))
        order = window_order(grid, self.size, shift, x.device)
        num_windows = order.source.shape[0] // (wh * ww)
        # one gather each way, instead of four copies for padding, rolling and partitioning
        tokens = F.pad(folded(x, x.shape[0], height * width), (0, 0, 1, 0))  # token 0 is the padding
        windows = folded(tokens.index_select(1, order.source), x.shape[0] * num_windows, wh * ww)  # (R·n, w², C)
        apart = Apart(order.part, self.apart) if sh or sw else None

        def back(windows: Tensor) -> Tensor:
            # task streams may begin inside the attention, so there may be more rows than it got
            rows = windows.shape[0] // num_windows
            return folded(windows, rows, num_windows * wh * ww).index_select(1, order.place)

        if prompts is None:
            # before the output projection, which then reads no padding, and while all task streams are still one
            x = self.window(windows, back, apart=apart)
            return folded(x, x.shape[0], *grid)
        # the windows of one row are adjacent, so each row's prompts are repeated in place
        windows = torch.cat([prompts.repeat_interleave(num_windows, 0), windows], 1)
        windows = self.window(windows, _as_they_are, apart=apart, prompts=count)
        prompts = windows[:, :count].reshape(-1, num_windows, count, windows.shape[2]).mean(1)
        return torch.cat([prompts, back(windows[:, count:])], 1)


class Order(NamedTuple):
    """Index tables between the tokens of a map and those of the windows of the padded and rolled map.

    Attributes:
        source: (n·w²,) int64, for each window token the map token it is, counted from 1; 0 for padding.
        place: (H·W,) int64, for each map token its index among the window tokens, counted from 0.
        part: (n·w²,) int64, 1 to 3 for tokens that rolling brought from the opposite border, else 0.
    """

    source: Tensor
    place: Tensor
    part: Tensor


def window_order(grid: tuple[int, int], size: tuple[int, int], shift: tuple[int, int], device: torch.device) -> Order:
    """The index tables for a map that is padded below and to the right, then rolled.

    Args:
        grid: (H, W) of the map.
        size: height and width of a window.
        shift: by how much the padded map is rolled up and left, less than a window.
        device: device of the map.
    """
    (height, width), (wh, ww), (sh, sw) = grid, size, shift
    high, wide = rounded_up(height, wh), rounded_up(width, ww)
    # Sides of the padded map. No tensor here has the bare number of windows as a side: export assumes that a size that
    # is not 1 in its example is never 1. It cannot take a tensor modulo a size either, so the roll uses comparisons.
    row, column = torch.arange(high, device=device), torch.arange(wide, device=device)
    down = torch.where(row < sh, row + (high - sh), row - sh)
    right = torch.where(column < sw, column + (wide - sw), column - sw)
    rows = down // wh * wide * wh + down % wh * ww
    columns = right // ww * wh * ww + right % ww
    number = (row[:, None] * width + column + 1) * (row < height)[:, None] * (column < width)
    part = 2 * (row < sh)[:, None] + (column < sw).long()
    at = (rows[:, None] + columns).flatten()
    source = torch.empty_like(at).scatter(0, at, number.flatten())
    place = (cropped(rows, height)[:, None] + cropped(columns, width)).flatten()
    return Order(source, place, torch.empty_like(at).scatter(0, at, part.flatten()))


class Apart(NamedTuple):
    """The attention mask of the windows of a rolled map.

    Attributes:
        part: (n·w²,), see :class:`Order`.
        value: added to the logits of pairs of tokens of different parts.
    """

    part: Tensor
    value: float

    def added_to(self, bias: Tensor, rows: int, prompts: int) -> Tensor:
        """Add the mask to a position bias (h, p + w², p + w²) with p prompts first → (R·n, h, p + w², p + w²)."""
        tokens = bias.shape[-1] - prompts
        part = folded(self.part.expand(rows * tokens // self.part.shape[0], -1), rows)  # (R·n, w²)
        hidden = part[:, :, None] != part[:, None, :]
        mask = torch.zeros_like(hidden, dtype=bias.dtype).masked_fill(hidden, self.value)
        return bias + unseen_by_prompts(mask, prompts)[:, None]


def unseen_by_prompts(table: Tensor, prompts: int, value: float = 0.0) -> Tensor:
    """Extend a bias or mask over pairs of window tokens by p prompts: (…, w², w²) → (…, p + w², p + w²).

    Pairs with a prompt, for which the trunk has learned no bias, get ``value``: 0 for masks and bias tables.
    """
    return F.pad(table, (prompts, 0, prompts, 0), value=value) if prompts else table


def gathered(x: Tensor, grid: tuple[int, int], prompts: int) -> tuple[Tensor, tuple[int, int]]:
    """Input of patch merging for tokens with prompts: (R, p + H·W, C) → (R, p + ⌈H/2⌉·⌈W/2⌉, 4C) and the new grid.

    Four neighbours are concatenated in timm's order; a prompt with itself (Jia et al., VPT, ECCV 2022, for Swin).
    """
    rows, _, channels = x.shape
    (height, width), own = grid, x[:, :prompts]
    patches = x[:, prompts:].reshape(rows, height, width, channels)
    patches = F.pad(patches, (0, 0, 0, width % 2, 0, height % 2))
    high, wide = (height + 1) // 2, (width + 1) // 2
    patches = patches.reshape(rows, high, 2, wide, 2, channels).permute(0, 1, 3, 4, 2, 5)
    return torch.cat([own.repeat(1, 1, 4), patches.reshape(rows, high * wide, 4 * channels)], 1), (high, wide)


class Windowed(TimmTrunk):
    """Base of both versions of Swin: building the trunk from timm's modules, and patch merging with prompts."""

    sees_all: ClassVar[bool] = False

    @classmethod
    def with_windows(
        cls, swin: TimmModule, residuals: Callable[[TimmModule], dict[str, nn.Module]], **facts: Any
    ) -> Self:
        """A trunk from timm's ``swin``; ``residuals`` makes a block's two; for ``facts`` see :meth:`assemble`."""
        stages, features = [], []
        for layer, info in zip(swin.layers, swin.feature_info, strict=True):
            stages.append(Stage(layer.downsample, [residuals(block) for block in layer.blocks], nn.Identity()))
            features.append(FeatureInfo(info["num_chs"], info["reduction"]))
        stem, multiple = PatchStem(swin.patch_embed), int(features[-1].stride)
        backbone = cls.assemble(swin, stem=stem, stages=stages, features=features, multiple=multiple, **facts)
        backbone.most_prompts = 4 * math.prod(swin.layers[0].blocks[0].window_size)
        return backbone

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What both versions say alike of how they were built."""
        blocks = [stage.blocks[0] for stage in model.layers]
        return as_read(
            img_size=same_sides(model.patch_embed.img_size),
            patch_size=model.patch_embed.patch_size[0],
            embed_dim=model.feature_info[0]["num_chs"],
            depths=[len(stage.blocks) for stage in model.layers],
            num_heads=[block.attn.num_heads for block in blocks],
            window_size=windows_of([tuple(block.window_size) for block in blocks]),
            mlp_ratio=ratio_of(blocks[0].mlp.fc1.out_features, blocks[0].mlp.fc1.in_features),
            **dropouts_of(blocks[0].attn),
            **rates_of(model),
        )

    def maps_of(self, model: TimmModule) -> tuple[Tensor, Sequence[Tensor]]:
        """Of a picture whose maps are divided by their windows, since others are masked otherwise in timm."""
        windows = [stage.blocks[0].window_size for stage in model.layers]
        strides = [int(feature.stride) for feature in self.features]
        sides = [math.lcm(*(s * w[side] for s, w in zip(strides, windows, strict=True))) for side in (0, 1)]
        images = noise_picture(*sides)
        model.set_input_size(img_size=tuple(sides), window_size=windows)
        return images, model.forward_intermediates(images, norm=False, intermediates_only=True)

    @staticmethod
    @abstractmethod
    def reduce(merging: TimmModule, x: Tensor) -> Tensor:
        """Norm and reduction of a patch merging, in the family's order: (R, N, 4C) → (R, N, 2C)."""

    def enter(self, entrance: nn.Module, x: Tensor, ctx: ForwardContext) -> tuple[Tensor, tuple[int, int]]:
        """Run patch merging, also of a stream with prompts; returns the new stream and its grid."""
        if x.ndim == 4:
            return super().enter(entrance, x, ctx)
        x, grid = gathered(x, ctx.grid, ctx.num_prefix)
        return self.reduce(entrance, x), grid


def without_classifier(convert: StateFilter) -> StateFilter:
    """Timm's conversion of checkpoints, also for those of a trunk alone.

    Before its 1.0.31 timm takes every file without a classifier for one in the names of Liu et al.'s code, where
    merging belongs to the stage in front of it, and renames what has the right name already.
    """

    def dialects(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        if not any(name.startswith("layers.0.downsample.") for name in state):
            state = {"head.fc.weight": torch.zeros(0), **state}
        return convert(state, model)

    return dialects


class PatchStem(nn.Module):
    """Non-overlapping patch embedding, with a norm where the family has one."""

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.patch_embed = patch_embed

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Tensor | None]]:
        """(I, 3, H, W) → (I, H/4, W/4, C), its grid, no extras."""
        x = self.patch_embed(images)
        return x, (x.shape[1], x.shape[2]), {}
