"""Frozen convolutions, frozen batch norms and dropout that keep less for the backward pass than torch's own.

Their results are torch's own, bit by bit. A frozen convolution needs its weight alone for the gradient of its input, a
frozen batch norm its scale; torch keeps the inputs of both. Dropout on a CPU keeps a mask of floats, where one byte a
value is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor


@final
class _FrozenConvolution(torch.autograd.Function):
    """A convolution with frozen weight and bias: of its input only the layout is kept."""

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any
    ) -> Tensor:
        ctx.layout, ctx.dtype, ctx.how = (x.shape, x.stride()), x.dtype, how
        ctx.save_for_backward(weight)
        return run(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        # stands in for the input, whose values are not read, as only its gradient is asked for; its layout is
        like = grad if (grad.shape, grad.stride()) == ctx.layout else grad.new_empty_strided(*ctx.layout)
        made = torch.ops.aten.convolution_backward(
            grad, like, weight.to(grad.dtype), None, stride, padding, dilation, False, [0] * len(stride), groups,
            [True, False, False],
        )[0]  # fmt: skip
        return None, made.to(ctx.dtype), None, None, None, None, None, None


def frozen_convolution(
    run: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """``run``, torch's ``conv1d``, ``conv2d`` or ``conv3d``, of these arguments; None if it is not frozen."""
    if not x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad):
        return None
    sides = weight.ndim - 2
    if isinstance(padding, str) or x.ndim != weight.ndim:
        return None
    how = [[value] * sides if isinstance(value, int) else list(value) for value in (stride, padding, dilation)]
    made: Tensor = _FrozenConvolution.apply(run, x, weight, bias, *how, groups)
    return made


@final
class _FrozenBatchNorm(torch.autograd.Function):
    """A batch norm with frozen statistics, scale and shift: nothing of its input is kept."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], x: Tensor, scale: Tensor, given: Mapping[str, Any]) -> Tensor:
        ctx.save_for_backward(scale)
        return run(x, **given)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, grad * ctx.saved_tensors[0].view(-1, *[1] * (grad.ndim - 2)), None, None


def frozen_batch_norm(
    run: Callable[..., Tensor],
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """``run``, torch's ``batch_norm``, of these arguments; None if it is not frozen."""
    if training or running_mean is None or running_var is None or not x.requires_grad:
        return None
    if any(one is not None and one.requires_grad for one in (weight, bias)):
        return None
    scale = (running_var + eps).rsqrt() if weight is None else weight * (running_var + eps).rsqrt()
    given = {
        "running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias, "training": False,
        "momentum": momentum, "eps": eps,
    }  # fmt: skip
    made: Tensor = _FrozenBatchNorm.apply(run, x, scale, given)
    return made


@final
class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, share: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.share = share
        return masked(x, kept, share)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return masked(grad, ctx.saved_tensors[0], ctx.share), None, None


def masked(x: Tensor, kept: Tensor, share: float) -> Tensor:
    """``x / share`` where ``kept`` (bool, the shape of x), 0 elsewhere; as torch rounds it, and without a gradient."""
    return (x * x.new_ones(()).div_(share)).mul_(kept)


def drop(x: Tensor, kept: Tensor, share: float) -> Tensor:
    """:func:`masked`, with a gradient."""
    made: Tensor = _Masked.apply(x, kept, share)
    return made


def draw_kept(x: Tensor, p: float) -> Tensor:
    """Which values dropout with probability ``p`` keeps, as bool: the draws that torch's own dropout would make."""
    if x.device.type != "cpu":
        return torch.native_dropout(x.detach(), p, True)[1]
    return torch.empty_like(x, dtype=torch.bool, requires_grad=False).bernoulli_(1 - p)
