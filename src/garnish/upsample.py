"""From a head's grid to pixels: bilinear, with a backward pass that is two products of matrices on a CPU.

Shape letters: n pictures, C channels, h w the grid, H W pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, C, h, w) → (n, C, H, W), as ``F.interpolate`` does it bilinearly, without aligned corners.

    Its own backward pass on a CPU scatters pixel by pixel, which takes about a third of a step that trains heads alone;
    the transposed maps of rows and columns give the same in less than half the time.
    """
    if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu" and not torch.compiler.is_compiling():
        made: Tensor = _Bilinear.apply(x.contiguous(), size)
        return made
    return _bilinear(x, size)


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.grid, ctx.size = (x.shape[2], x.shape[3]), size
        return _bilinear(x, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        rows, columns = (_matrix(n, m, grad.dtype) for n, m in zip(ctx.grid, ctx.size, strict=True))
        return rows.T @ (grad @ columns), None


def _bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=16)
def _matrix(n: int, m: int, dtype: torch.dtype) -> Tensor:
    """(m, n): the weights with which m pixels of a line read its n grid points."""
    with torch.inference_mode(False), torch.no_grad():
        weights = _bilinear(torch.eye(n, dtype=torch.float64)[None, None], (m, n))[0, 0]
    return weights.to(dtype)
