"""Tensor operations without conditions on dynamic sizes, so that one exported graph serves pictures of all sizes.

``torch.export`` traces with one example. A dynamic size is kept as an expression, and every test on it (does a slice
cut anything off, does one side divide another) becomes a guard of the graph, which then refuses the sizes for which
it is false. The functions here test nothing. Outside of exports they give what plain code gives, views included.

Shape letters: h w sides before, H W after.
"""

from __future__ import annotations

from types import EllipsisType

import torch
from torch import Tensor
from torch.nn import functional as F


def rounded_up(side: int, multiple: int) -> int:
    """The smallest multiple that is at least ``side``; by division, as export handles remainders poorly."""
    return (side + multiple - 1) // multiple * multiple


def cropped(x: Tensor, *sides: int) -> Tensor:
    """(…, h, w) → (…, H, W): crop the last axes to ``sides``, keeping the top left; a view.

    In an exported graph it is a copy, made by negative padding: a slice would add a guard on whether it cuts anything.
    """
    if torch.compiler.is_exporting():
        pads = [pad for side, now in zip(sides, x.shape[-len(sides) :], strict=True) for pad in (side - now, 0)]
        return F.pad(x, pads[::-1])
    # slices, unlike narrow, cost no padding in the backward pass where they keep a whole axis
    kept: tuple[EllipsisType | slice, ...] = (..., *(slice(side) for side in sides))
    return x[kept]


def folded(x: Tensor, *sides: int) -> Tensor:
    """``x.reshape(*sides, -1)`` without guards.

    A traced ``reshape`` compares the sides before and after, and so excludes a map of one window or of one column.
    Here the sides are split off a single axis one by one, so each is compared with a multiple of itself only.
    """
    x = x.flatten()
    for side in sides:
        x = torch.unflatten(x, -1, (side, -1))
    return x


def averaged(x: Tensor, side: int) -> Tensor:
    """(n, C, H, W) → (n, C, ⌈H/side⌉, ⌈W/side⌉): average pooling over squares, smaller ones at the far edges.

    Pooling with ``ceil_mode`` adds a guard on whether the last square begins within the map. Dividing the pooled,
    zero-padded map by the pooled, padded ones gives the same (bit-identical for a side of 2).
    """
    if not torch.compiler.is_exporting():
        return F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)
    pads = [pad for now in (x.shape[3], x.shape[2]) for pad in (0, rounded_up(now, side) - now)]
    ones = x.new_ones(1, 1, *x.shape[2:])
    return F.avg_pool2d(F.pad(x, pads), side) / F.avg_pool2d(F.pad(ones, pads), side)


def pooled_to(x: Tensor, cells: int) -> Tensor:
    """(n, C, h, w) → (n, C, cells, cells): adaptive average pooling; cells that do not divide a side overlap.

    ONNX has no such operator, and its exporter writes the cells of the example's size down, whatever the size is at
    hand. Two products with matrices of shares give the same.
    """
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, cells)
    if cells == 1:  # a product with a row adds a guard
        return x.mean((2, 3), keepdim=True)
    down, across = (_shares(side, cells, x) for side in x.shape[2:])
    return down @ x @ across.T


def _shares(side: int, cells: int, like: Tensor) -> Tensor:
    """(cells, side): the share of each place in cell i, from ⌊i·side/cells⌋ to before ⌈(i + 1)·side/cells⌉."""
    cell = torch.arange(cells, device=like.device)[:, None]
    place = torch.arange(side, device=like.device)[None]
    first, end = cell * side // cells, ((cell + 1) * side + cells - 1) // cells
    inside = ((place >= first) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def ordered(x: Tensor) -> Tensor:
    """The same tensor; in an exported graph a contiguous copy, as mixed memory layouts add guards on strides."""
    return x.contiguous() if torch.compiler.is_exporting() else x


def at_most_one(count: int | torch.SymInt) -> int:
    """min(count, 1); for a symbolic count a symbolic expression."""
    if isinstance(count, int):  # also while compiling, where older releases of torch do not take sym_min of a constant
        return min(count, 1)
    smaller: int = torch.sym_min(1, count)  # type: ignore[assignment]  # a SymInt
    return smaller
