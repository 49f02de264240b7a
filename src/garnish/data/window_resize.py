"""Resizing a part of a picture as if the whole had been resized and the part been cut out of that.

A pixel of the resized picture is a mean of those around its place in the picture, weighed by a triangle: of one pixel
to either side where the picture grows, of as many as become one where it shrinks (bilinear, antialiased, as
:func:`garnish.data.augment.resize_sample`). So a part needs that margin and nothing else.

Shape letters: H W pixels of the picture, h w of the resized one, C channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """Rows or columns ``first`` to ``end`` − 1."""

    first: int
    end: int


def needed_rows(part: Span, whole: int, scaled: int) -> Span:
    """Rows of a picture of which some rows of the resized one are made.

    Args:
        part: rows of the resized picture.
        whole: H.
        scaled: h.
    """
    if whole == scaled:
        return part
    ratio = whole / scaled
    reach = max(ratio, 1.0)
    first = math.floor((part.first + 0.5) * ratio - reach)
    end = math.ceil((part.end - 0.5) * ratio + reach) + 1
    return Span(max(first, 0), min(end, whole))


def nearest(part: Span, whole: int, scaled: int, held: Span) -> Tensor:
    """Which of the ``held`` rows each row of ``part`` is, as :func:`garnish.targets.kernels.resize_map` takes them."""
    if whole == scaled:
        return torch.arange(part.first - held.first, part.end - held.first)
    rows = ((torch.arange(scaled)[part.first : part.end] + 0.5) * (whole / scaled)).long().clamp(max=whole - 1)
    return rows - held.first


def resized_part(held: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The part of a resized picture, of the dtype of the picture.

    Args:
        held: (C, …, …) uint8 or float32, the rows and columns that :func:`needed_rows` names.
        rows: (rows of the part, rows held) weights of :func:`weights`.
        columns: likewise.

    Returns:
        (C, rows, columns). NaN where a pixel that counts is NaN.
    """
    values = held.float()
    gaps = values.isnan()
    if not gaps.any():
        found = rows @ values @ columns.T
    else:
        found = rows @ values.nan_to_num(0.0, torch.inf, -torch.inf) @ columns.T
        found = found.masked_fill(rows @ gaps.float() @ columns.T > 1e-6, torch.nan)
    return found if held.is_floating_point() else found.round().clamp(0, 255).to(held.dtype)


def weights(part: Span, whole: int, scaled: int, held: Span) -> Tensor:
    """(rows of the part, rows held) float32 weights, which add up to 1 in each row."""
    if whole == scaled:
        return torch.eye(held.end - held.first)[part.first - held.first : part.end - held.first]
    ratio = whole / scaled
    centres = (torch.arange(part.first, part.end, dtype=torch.float64) + 0.5) * ratio
    places = torch.arange(held.first, held.end, dtype=torch.float64) + 0.5
    found = (1 - (places - centres[:, None]).abs() / max(ratio, 1.0)).clamp_min(0)
    return (found / found.sum(1, keepdim=True)).float()
