"""Cutting and rearranging by sizes that an export does not know, so that one graph serves pictures of all sizes.

``torch.export`` traces with one example. Where a size is left open it keeps an expression, and whatever is asked of it
(whether a slice cuts anything off, whether one side divides another) becomes a condition of the graph, which then
refuses the sizes of which it does not hold. What stands here asks nothing. Outside of exports it does as plain code
does, view for view.

Shape letters: h w sides before, H W after.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rounded_up(side: int, multiple: int) -> int:
    """The smallest multiple that is not below a side; by division, for export knows little of remainders."""
    return (side + multiple - 1) // multiple * multiple


def cropped(x: Tensor, *sides: int) -> Tensor:
    """(…, h, w) → (…, H, W): what lies below and to the right of the last axes' ``sides`` is cut off; a view.

    In an exported graph it is a copy, made by padding with less than nothing: a slice would be asked whether it is all.
    """
    if torch.compiler.is_exporting():
        pads = [pad for side, now in zip(sides, x.shape[-len(sides) :], strict=True) for pad in (side - now, 0)]
        return F.pad(x, pads[::-1])
    # by slices, which leave a whole axis alone: what is narrowed is padded again in the backward pass
    kept: tuple[Any, ...] = (..., *(slice(side) for side in sides))
    return x[kept]


def folded(x: Tensor, *sides: int) -> Tensor:
    """``x.reshape(*sides, -1)``.

    A traced ``reshape`` compares the sides before and after, and so excludes a map of one window or of one column.
    Taken one by one from a single axis, each is compared with a multiple of it.
    """
    x = x.flatten()
    for side in sides:
        x = torch.unflatten(x, -1, (side, -1))
    return x


def averaged(x: Tensor, side: int) -> Tensor:
    """(n, C, H, W) → (n, C, ⌈H/side⌉, ⌈W/side⌉): means of squares, smaller ones at the far edges.

    Where the number of squares is rounded up, an export asks whether the last one begins within the map. Sums over a
    map padded with zeros, over what they count, are the same (for a side of 2 to the last bit).
    """
    if not torch.compiler.is_exporting():
        return F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)
    pads = [pad for now in (x.shape[3], x.shape[2]) for pad in (0, rounded_up(now, side) - now)]
    ones = x.new_ones(1, 1, *x.shape[2:])
    return F.avg_pool2d(F.pad(x, pads), side) / F.avg_pool2d(F.pad(ones, pads), side)


def ordered(x: Tensor) -> Tensor:
    """The same; in an exported graph contiguous, for of two layouts that meet export asks whether strides divide."""
    return x.contiguous() if torch.compiler.is_exporting() else x


def at_most_one(count: int) -> int:
    """The smaller of a count and 1; an expression, where the count is one."""
    smaller: int = torch.sym_min(1, count)  # type: ignore[assignment]  # declared as int or SymInt
    return smaller
