"""Deformable convolution (Dai et al., ICCV 2017, eq. 2; with a mask: Zhu et al., CVPR 2019, eq. 1).

torchvision's operator, and an equivalent in plain torch, also in its gradients at integer positions.

Shape letters: B pictures, C input channels, O output channels, G offset groups, K taps (kernel height × width),
H W input grid, h w output grid.
"""

from __future__ import annotations

import contextlib
import math
from functools import cache
from typing import final

import torch
import torchvision.ops
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, register_flop_formula

#: device types for which torchvision has kernels
_KERNELS = ("cpu", "cuda")
_HALVES = (torch.float16, torch.bfloat16)
Pair = int | tuple[int, int]


@final
class DeformableConv(nn.Module):
    """Deformable convolution of stride 1 with same padding; weight and bias are initialised as in ``nn.Conv2d``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(in_channels * kernel * kernel)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """Maps (B, C, H, W) and offsets as :func:`deform_conv2d` takes them → (B, O, h, w)."""
        return deform_conv2d(x, offset, self.weight, self.bias, padding=self.padding)


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolution that samples each tap at its position plus an offset, bilinearly, with zeros outside.

    Runs torchvision's operator if possible; :func:`deform_conv2d_twin` while a graph is captured (compiling,
    exporting, tracing), on devices without a kernel, if deterministic algorithms are requested (torchvision's
    gradients on CUDA are not) and for empty batches. Both agree up to rounding. Half precision is
    computed in float32 (offsets of 100 pixels have steps of half a pixel in bfloat16), also under autocast. If an
    offset is NaN, all outputs at that position are NaN.

    Args:
        x: (B, C, H, W), floating point.
        offset: (B, G · K · 2, h, w) in pixels: for each group and tap (row-major) first down, then right.
        weight: (O, C / groups, kernel height, kernel width).
        bias: (O,).
        stride: one number or (down, right), like ``padding`` and ``dilation``.
        padding: rows and columns of zeros around the map.
        dilation: distance between taps in pixels.
        mask: (B, G · K, h, w), a factor for each sample.

    Returns:
        (B, O, h, w) in the dtype of ``x``.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    _check(x, offset, weight, stride, padding, dilation, mask)
    run = torchvision.ops.deform_conv2d if _torchvision_can(x) else deform_conv2d_twin
    kind = x.dtype
    with without_autocast(x.device):
        x, offset, weight = _wide(x), _wide(offset), _wide(weight)
        bias, mask = None if bias is None else _wide(bias), None if mask is None else _wide(mask)
        lost = offset.isnan()  # neither can index with NaN: torchvision's crashes the process
        offset = offset.masked_fill(lost, 0)
        out = run(x, offset, weight, bias, stride=stride, padding=padding, dilation=dilation, mask=mask)
        return out.masked_fill(lost.any(1, keepdim=True), math.nan).to(kind)


def deform_conv2d_twin(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """:func:`deform_conv2d` in plain torch: it can be compiled and exported, and has derivatives of any order.

    It keeps about 16 numbers per sample for the backward pass, torchvision's none.
    """
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    b, c, height, width = x.shape
    kernel_h, kernel_w = weight.shape[-2:]
    taps, (h, w) = kernel_h * kernel_w, offset.shape[-2:]
    groups = offset.shape[1] // (2 * taps)
    moved = offset.reshape(b, groups, taps, 2, h, w)
    down = _places(kernel_h, dilation[0], h, stride[0], padding[0], offset)
    right = _places(kernel_w, dilation[1], w, stride[1], padding[1], offset)
    tap = torch.arange(taps, device=offset.device)
    y = moved[:, :, :, 0] + down.index_select(0, tap // kernel_w)[:, :, None]
    x_ = moved[:, :, :, 1] + right.index_select(0, tap % kernel_w)[:, None]
    sampled = _bilinear(x.reshape(b, groups, c // groups, height * width), y, x_, height, width)
    if mask is not None:
        sampled = sampled * mask.reshape(b, groups, 1, taps, h, w)
    # a 1×1 convolution over (channel, tap) pairs, which is the layout of the weight already
    # via a single axis: reshaped directly, export would add a guard for a single tap
    joined = torch.unflatten(sampled.flatten(), 0, (b, c * taps, h, w))
    return F.conv2d(joined, weight.flatten(1)[..., None, None], bias, groups=_groups(c, weight))


def _places(kernel: int, dilation: int, count: int, stride: int, padding: int, like: Tensor) -> Tensor:
    """(kernel, count): positions of the taps without offsets, in pixels."""
    starts = torch.arange(count, device=like.device, dtype=like.dtype) * stride - padding
    return torch.arange(kernel, device=like.device, dtype=like.dtype)[:, None] * dilation + starts


def _bilinear(source: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Samples (B, G, C/G, K, h, w) of ``source`` (B, G, C/G, H·W) at positions (B, G, K, h, w), zero outside.

    ``grid_sample`` is not used: its normalised coordinates are rounded, and at integer positions (where all offsets
    are 0) the rounding would decide which of the two one-sided derivatives is returned.
    """
    b, groups, channels, _ = source.shape
    # Samples are zero from one pixel outside on, so farther positions can be clamped, and no index overflows. Not to
    # -1 itself, where the derivative is that towards the map, which clamping would make zero.
    y, x = y.clamp(-2, height), x.clamp(-2, width)
    top, left = y.floor(), x.floor()
    low, aside = y - top, x - left
    out: Tensor | None = None
    for bottom, share_y in ((0, 1 - low), (1, low)):
        for right, share_x in ((0, 1 - aside), (1, aside)):
            row, column = top + bottom, left + right
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().flatten(2)
            values = source.gather(3, index[:, :, None].expand(-1, -1, channels, -1))
            part = values.reshape(b, groups, channels, *y.shape[2:]) * (share_y * share_x * inside)[:, :, None]
            out = part if out is None else out + part
    assert out is not None
    return out


def _torchvision_can(x: Tensor) -> bool:
    captured = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return (
        not captured
        and x.device.type in _KERNELS
        and x.shape[0] > 0
        and not (x.is_cuda and torch.are_deterministic_algorithms_enabled())
        and _operator() is not None
    )


@cache
def _operator() -> object | None:
    """The compiled operator of torchvision, or None if torchvision was built without it."""
    try:
        found: object = torch.ops.torchvision.deform_conv2d
    except AttributeError:
        return None
    return found


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context that turns autocast off; a null context if it is off already, which keeps captured graphs simple."""
    kind = device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):  # other devices are not tested
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALVES else tensor


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _groups(channels: int, weight: Tensor) -> int:
    return channels // weight.shape[1]


def _check(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: Tensor | None,
) -> None:
    kernel = tuple(weight.shape[-2:])
    sides = zip(x.shape[-2:], kernel, stride, padding, dilation, strict=True)
    grid = tuple((side + 2 * p - d * (k - 1) - 1) // s + 1 for side, k, s, p, d in sides)
    taps, c = kernel[0] * kernel[1], x.shape[1]
    groups = offset.shape[1] // (2 * taps)
    if not groups or offset.shape[1] % (2 * taps) or c % groups:
        raise ValueError(
            f"deform_conv2d: {offset.shape[1]} offset channels for {c} channels and {taps} taps; "
            f"give {2 * taps} times a divisor of {c}"
        )
    if (offset.shape[0], *offset.shape[-2:]) != (x.shape[0], *grid):
        raise ValueError(
            f"deform_conv2d: offsets {tuple(offset.shape)} for an output grid of {grid} and {x.shape[0]} pictures; "
            f"give {(x.shape[0], offset.shape[1], *grid)}"
        )
    if c % weight.shape[1] or weight.shape[0] % _groups(c, weight):
        raise ValueError(f"deform_conv2d: weight {tuple(weight.shape)} does not divide {c} channels into groups")
    if mask is not None and tuple(mask.shape) != (x.shape[0], groups * taps, *grid):
        raise ValueError(f"deform_conv2d: mask {tuple(mask.shape)}; give {(x.shape[0], groups * taps, *grid)}")


def _flops(x: list[int], weight: list[int], *rest: object, out_shape: list[int]) -> int:
    """Two per multiplication of the convolution; sampling is not a matrix product and does not count."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


# torch counts 0 FLOPs for unknown operators, so costs would depend on which implementation is used
if _operator() is not None and _operator() not in flop_registry:
    register_flop_formula(_operator())(_flops)
