"""The low-rank update of a linear layer as one function: with the frozen layer in one product, or added to its output.

``x (W + s·B A)ᵀ``: beside many rows, making the sum of the weights anew each time costs little, and no tensor of the
output's size is added in either direction. ``y + s·(x Aᵀ) Bᵀ``, where dropout parts x from the layer's input: one
function in place of six.

Shape letters: N rows, o output width, i input width, r rank.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.pass_state import Autocast
from garnish.engine.remaking import note_made

#: Rows of the input, over ``o i / (o + i)``, from which one product is faster than two paths and their sum.
PAYS_FROM = 2


def pays(x: Tensor, layer: nn.Linear) -> bool:
    """Whether one product is worth the sum of the weights for an input (…, i)."""
    i, o = layer.in_features, layer.out_features
    return x.numel() // i * (o + i) >= PAYS_FROM * o * i


def low_rank_product(x: Tensor, layer: nn.Linear, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``x (W + s·B A)ᵀ + bias`` of a frozen layer: (…, i) → (…, o)."""
    kind = Autocast.now().of(x)
    x = x if kind is None else x.to(kind)
    rows = x.flatten(0, -2)
    with torch._C.DisableTorchFunction():
        out: Tensor = _Product.apply(rows, layer.weight, layer.bias, a, b, scale)
        return out.view(*x.shape[:-1], out.shape[-1])  # here: a view that a function returns takes no writes in place


def low_rank_sum(x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``y + s·(x Aᵀ) Bᵀ``: (…, i) and (…, o) → (…, o)."""
    kind = Autocast.now().of(x)
    x = x if kind is None else x.to(kind)
    with torch._C.DisableTorchFunction():
        rows, hidden = _Sum.apply(x, y, a, b, scale)
        out: Tensor = rows.view(y.shape)
    note_made(out, _added, y, hidden, b, scale)
    return out


def _added(y: Tensor, hidden: Tensor, b: Tensor, scale: float) -> Tensor:
    """``y + s·hidden Bᵀ``: (…, o) and (N, r) → (N, o)."""
    return torch.addmm(y.flatten(0, -2), hidden, b.to(y.dtype).t(), alpha=scale)


@final
class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        ctx.scale = scale
        hidden = x.flatten(0, -2) @ a.to(x.dtype).t()
        ctx.save_for_backward(x, hidden, a, b)
        ctx.mark_non_differentiable(hidden)
        return _added(y, hidden, b, scale), hidden

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, a, b = ctx.saved_tensors
        kind = grad.dtype
        if torch.is_grad_enabled():  # to be differentiated again, also by way of what was computed on the way
            hidden = x.flatten(0, -2) @ a.to(x.dtype).t()
        narrow = torch.mm(grad, b.to(kind)).mul_(ctx.scale)
        mine = torch.mm(narrow, a.to(kind)).view_as(x).to(x.dtype) if ctx.needs_input_grad[0] else None
        down = torch.mm(narrow.t(), x.flatten(0, -2).to(kind)).to(a.dtype) if ctx.needs_input_grad[2] else None
        up = torch.mm(grad.t(), hidden.to(kind)).mul_(ctx.scale).to(b.dtype) if ctx.needs_input_grad[3] else None
        own = grad.view(*x.shape[:-1], grad.shape[-1]) if ctx.needs_input_grad[1] else None
        return mine, own, down, up, None


@final
class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        ctx.save_for_backward(x, weight, a, b)
        return F.linear(
            x, torch.addmm(weight, b, a, alpha=scale).to(x.dtype), None if bias is None else bias.to(x.dtype)
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        kind, own = grad.dtype, x.dtype
        entered = x.to(kind)
        # (g B) is (N, r): every product but the last is as narrow as the rank
        hidden = grad @ (b * ctx.scale).to(kind)
        down = (hidden.t() @ entered).to(a.dtype) if ctx.needs_input_grad[3] else None
        up = (ctx.scale * (grad.t() @ (entered @ a.to(kind).t()))).to(b.dtype) if ctx.needs_input_grad[4] else None
        del x, entered  # made again for this, and as large as what comes
        mine = None
        if ctx.needs_input_grad[0]:
            mine = (grad @ torch.addmm(weight, b, a, alpha=ctx.scale).to(kind)).to(own)
        return mine, None, None, down, up, None
