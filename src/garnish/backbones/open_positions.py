"""Positions of a grid of any size for exported graphs: without conditions on its sides, in operations that agree.

Timm's own functions serve everywhere else. In a graph they would keep the sides of its example (a rotary table), or ask
for an antialiased resize (a learnt table), which some runtimes compute without antialiasing, and do not say so.

Shape letters: h w sides of a learnt table, H W of the grid, C channels, F frequencies.
"""

from __future__ import annotations

import math

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import Tensor

from garnish.backbones.timm_models import TimmModule
from garnish.errors import OptionError

#: Free parameter of the bicubic kernel where it is antialiased, as in Pillow, and where it is not.
_A, _PLAIN_A = -0.5, -0.75


def resampled(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], num_prefix: int, *, antialias: bool = True
) -> Tensor:
    """(1, p + h·w, C) → (1, p + H·W, C): bicubic, as ``timm.layers.resample_abs_pos_embed``.

    Bicubic weights of rows and columns do not depend on each other, so it is two matrix products.

    Args:
        table: learnt positions, of p prefix tokens first.
        old: (h, w).
        new: (H, W).
        num_prefix: p.
        antialias: as torch's bicubic interpolation has it, which takes another kernel without.
    """
    prefix, own = table[:, :num_prefix], table[0, num_prefix:]
    channels = own.shape[1]
    weights = _weights if antialias else _plain_weights
    down, across = (weights(n, m, own) for n, m in zip(old, new, strict=True))
    rows = down @ own.reshape(old[0], old[1] * channels).float()  # (H, w·C)
    both = across @ rows.reshape(new[0], old[1], channels)  # (H, W, C)
    return torch.cat([prefix, both.reshape(1, new[0] * new[1], channels).to(table.dtype)], 1)


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """(new, old) float32: weights of a line's resampled points from its own, antialiased."""
    at = torch.arange(new, device=like.device, dtype=torch.float32) + 0.5
    place = torch.arange(old, device=like.device, dtype=torch.float32) + 0.5
    wide = (at * 0 + new)[:, None]  # as a tensor, since ONNX's translation takes no bare side for a float
    # over a common denominator, of whole and half numbers, so that nothing is rounded before the division
    apart = (place * wide - at[:, None] * old).abs() / wide.clamp_min(old)
    near = ((_A + 2) * apart - (_A + 3)) * apart * apart + 1
    far = _A * (((apart - 5) * apart + 8) * apart - 4)
    weights = torch.where(apart < 1, near, torch.where(apart < 2, far, torch.zeros_like(far)))
    return weights / weights.sum(1, keepdim=True)


def _plain_weights(old: int, new: int, like: Tensor) -> Tensor:
    """(new, old) float32: the same without antialiasing; beyond its ends a line goes on as it ends."""
    at = torch.arange(new, device=like.device, dtype=torch.float32) + 0.5
    place = torch.arange(old, device=like.device, dtype=torch.float32)
    wide = at * 0 + new  # as above
    middle = at * old / wide - 0.5
    first = middle.floor()
    weights = torch.zeros_like(middle[:, None] * place)
    for step in (-1.0, 0.0, 1.0, 2.0):
        apart = (middle - first - step).abs()
        near = ((_PLAIN_A + 2) * apart - (_PLAIN_A + 3)) * apart * apart + 1
        far = _PLAIN_A * (((apart - 5) * apart + 8) * apart - 4)
        own = (first + step).clamp(0, old - 1)
        weights = weights + torch.where(apart <= 1, near, far)[:, None] * (own[:, None] == place)
    return weights


def rotary(rope: TimmModule, grid: tuple[int, int]) -> Tensor:
    """(H·W, 4F or as timm has it): sines and cosines of a grid's positions, as the module's ``get_embed``.

    Raises:
        OptionError: positions that are scaled by the smaller or the larger side, which no released model has.
    """
    if not isinstance(rope, RotaryEmbeddingDinoV3):  # timm's others count positions, and so know no sides
        table: Tensor = rope.get_embed(shape=grid)
        return table
    if rope.normalize_coords != "separate" or rope.grid_indexing != "ij":
        raise OptionError("export: rotary positions that depend on the smaller side are not supported")
    lines = []
    for side in grid:
        at = torch.arange(side, device=rope.periods.device, dtype=torch.float32) + (0.5 + rope.grid_offset)
        lines.append(2.0 * (at / (at * 0 + side)) - 1.0)
    down = lines[0][:, None].expand(-1, grid[1])
    across = lines[1][None].expand(grid[0], -1)
    place = torch.stack([down, across], 2).reshape(grid[0] * grid[1], 2)
    angles = (2 * math.pi * place[:, :, None] / rope.periods).flatten(1)  # rows' F, then columns' F
    angles = torch.cat([angles, angles], 1) if rope.rotate_half else angles.repeat_interleave(2, 1)
    return torch.cat([angles.sin(), angles.cos()], 1)
