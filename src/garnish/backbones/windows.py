"""Attention within windows of a map: padding, rolling, cutting and what may see what; shared by the Swin families.

Shape letters: R rows, H W map, C channels, n windows of one map, w² tokens of one window.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.backbones.timm_models import TimmTrunk
from garnish.engine.blocks import FeatureInfo, Stage
from garnish.engine.context import ForwardContext
from garnish.engine.open_sizes import at_most_one, cropped, folded, rounded_up


class ShiftedWindows(nn.Module):
    """Attention within windows of a map that is padded, then rolled, then masked; windows of one row stay together.

    Windows keep their size at every picture size. A map that they do not divide gets zeros below and to the right, is
    rolled with them, and is masked where the roll brought opposite borders together; so does the segmentation code of
    Liu et al. (ICCV 2021). Padded tokens take part, and with the trained bias their keys are not zero. timm 1.0 rolls
    first and pads afterwards but masks as if it had padded first: there opposite borders attend to each other at such
    sizes, and features differ from ours; where windows divide every map they agree.

    A side that one window covers is not shifted, whatever the other side has: the rule of timm. There libraries
    differ: transformers' Swin shifts neither side and makes windows as small as the side, unless it is told to
    partition always; the segmentation code always shifts and masks.
    """

    def __init__(self, attention: nn.Module, size: tuple[int, int], shift: tuple[int, int], apart: float) -> None:
        """Cut windows of ``size`` from a map rolled by ``shift`` for ``attention(tokens, apart=…)``.

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
            prompts, x = x[:, :count], folded(x[:, count:], x.shape[0], *grid)
        _, height, width, _ = x.shape
        grid = (height, width)
        (wh, ww), (sh, sw) = self.size, self.full_shift
        # no branch by a size, here and below, so that one exported graph serves all: a side of one window shifts by 0
        shift = (sh * at_most_one((height - 1) // wh), sw * at_most_one((width - 1) // ww))
        order = window_order(grid, self.size, shift, x.device)
        num_windows = order.source.shape[0] // (wh * ww)
        # one copy each way: padding, rolling and cutting one after the other are four
        tokens = F.pad(folded(x, x.shape[0], height * width), (0, 0, 1, 0))  # the first stands for all of the padding
        windows = folded(tokens.index_select(1, order.source), x.shape[0] * num_windows, wh * ww)  # (R·n, w², C)
        apart = Apart(order.part, self.apart) if sh or sw else None
        if prompts is None:
            windows = self.window(windows, apart=apart)
        else:
            # the windows of one row lie together, so its prompts are repeated in place, not as a whole batch
            windows = torch.cat([prompts.repeat_interleave(num_windows, 0), windows], 1)
            windows = self.window(windows, apart=apart, prompts=count)
            prompts = windows[:, :count].reshape(-1, num_windows, count, windows.shape[2]).mean(1)
            windows = windows[:, count:]
        # task streams may begin in the window, so more rows may leave it than came
        rows = windows.shape[0] // num_windows
        x = folded(windows, rows, num_windows * wh * ww).index_select(1, order.place)
        return folded(x, rows, *grid) if prompts is None else torch.cat([prompts, x], 1)


class Order(NamedTuple):
    """How the tokens of a padded and rolled map lie in its windows.

    Attributes:
        source: (n·w²,) int64, the number of each window token's map token counted from 1, 0 for padding.
        place: (H·W,) int64, the place of each map token among those of the windows, counted from 0.
        part: (n·w²,) int64, 1 to 3 for tokens that the roll brought from the other border, else 0.
    """

    source: Tensor
    place: Tensor
    part: Tensor


def window_order(grid: tuple[int, int], size: tuple[int, int], shift: tuple[int, int], device: torch.device) -> Order:
    """The order of the windows of a map that is padded below and to the right, then rolled.

    Args:
        grid: (H, W) of the map.
        size: of a window.
        shift: by how much the padded map is rolled up and left, less than a window.
        device: of the map.
    """
    (height, width), (wh, ww), (sh, sw) = grid, size, shift
    high, wide = rounded_up(height, wh), rounded_up(width, ww)
    # Of the padded map. No side of a tensor here is a bare number of windows: export takes what is not 1 in its example
    # never to be 1. Nor does it know the remainder of a tensor by a size, so places after the roll are compared.
    row, column = torch.arange(high, device=device), torch.arange(wide, device=device)
    down, right = row - sh + high * (row < sh), column - sw + wide * (column < sw)
    rows = down // wh * wide * wh + down % wh * ww
    columns = right // ww * wh * ww + right % ww
    number = (row[:, None] * width + column + 1) * (row < height)[:, None] * (column < width)
    part = 2 * (row < sh)[:, None] + (column < sw).long()
    at = (rows[:, None] + columns).flatten()
    source = torch.empty_like(at).scatter(0, at, number.flatten())
    place = (cropped(rows, height)[:, None] + cropped(columns, width)).flatten()
    return Order(source, place, torch.empty_like(at).scatter(0, at, part.flatten()))


class Apart(NamedTuple):
    """What must not see each other in the windows of a rolled map.

    Attributes:
        part: (n·w²,) as :class:`Order` has it.
        value: added to the logits of tokens of different parts.
    """

    part: Tensor
    value: float

    def added_to(self, bias: Tensor, rows: int, prompts: int) -> Tensor:
        """A bias of window tokens behind ``prompts``, (h, p + w², p + w²), → (rows, h, p + w², p + w²), rows R·n."""
        tokens = bias.shape[-1] - prompts
        part = folded(self.part.expand(rows * tokens // self.part.shape[0], -1), rows)  # (R·n, w²)
        hidden = part[:, :, None] != part[:, None, :]
        mask = torch.zeros_like(hidden, dtype=bias.dtype).masked_fill(hidden, self.value)
        return bias + unseen_by_prompts(mask, prompts)[:, None]


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


class Windowed(TimmTrunk):
    """What the two versions of Swin share: how a trunk is put together from timm's, and merging with prompts."""

    @classmethod
    def with_windows(cls, swin: Any, residuals: Callable[[Any], dict[str, nn.Module]], **facts: Any) -> Self:
        """A trunk from timm's ``swin``; ``residuals`` makes the two of a block; for ``facts`` see :meth:`assemble`."""
        stages, features = [], []
        for layer, info in zip(swin.layers, swin.feature_info, strict=True):
            stages.append(Stage(layer.downsample, [residuals(block) for block in layer.blocks], nn.Identity()))
            features.append(FeatureInfo(info["num_chs"], info["reduction"]))
        stem, multiple = PatchStem(swin.patch_embed), int(features[-1].stride)
        backbone = cls.assemble(swin, stem=stem, stages=stages, features=features, multiple=multiple, **facts)
        backbone.most_prompts = 4 * math.prod(swin.layers[0].blocks[0].window_size)
        return backbone

    @staticmethod
    @abstractmethod
    def reduce(merging: Any, x: Tensor) -> Tensor:
        """Norm and reduction of a patch merging, in the family's order: (R, N, 4C) → (R, N, 2C)."""

    def enter(self, entrance: nn.Module, x: Tensor, ctx: ForwardContext) -> tuple[Tensor, tuple[int, int]]:
        """Patch merging of a stream with prompts too."""
        if x.ndim == 4:
            return super().enter(entrance, x, ctx)
        x, grid = gathered(x, ctx.grid, ctx.num_prefix)
        return self.reduce(entrance, x), grid


class PatchStem(nn.Module):
    """Non-overlapping patch embedding, with a norm where the family has one."""

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.patch_embed = patch_embed

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Any]]:
        """(I, 3, H, W) → (I, H/4, W/4, C), its grid, no extras."""
        x = self.patch_embed(images)
        return x, (x.shape[1], x.shape[2]), {}
