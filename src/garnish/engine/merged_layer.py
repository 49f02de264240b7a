"""A frozen layer run with the weight that an adapter makes of its own, which is made again in the backward pass.

Autograd would keep the new weight and all that it was made by way of: several tensors of the weight's size for each
layer. Here only the layer's input and the adapter's own tensors are kept.

Shape letters: o output width, i input width.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from garnish.engine.adapter import Adapter
from garnish.engine.pass_state import Autocast
from garnish.engine.stacks import merged_of, run_layer


def run_merged(adapter: Adapter, layer: nn.Module, x: Tensor) -> Tensor:
    """The output of a linear layer or convolution with an adapter in weight space: (…, i) → (…, o), or maps."""
    autocast = Autocast.now()
    kind = autocast.of(x)
    x = x if kind is None else x.to(kind)
    with torch._C.DisableTorchFunction():
        out: Tensor = _Merged.apply(autocast, adapter, layer, x, *adapter.parameters())
    return out


@final
class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, autocast: Autocast, adapter: Adapter, layer: nn.Module, x: Tensor, *own: Tensor) -> Tensor:
        ctx.autocast, ctx.adapter, ctx.layer = autocast, adapter, layer
        ctx.save_for_backward(x, *own)
        return run_layer(layer, x, *merged_of(adapter, layer))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *own = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        with torch.enable_grad(), ctx.autocast.again():
            made = [tensor for tensor in merged_of(ctx.adapter, ctx.layer) if tensor is not None]
        found = _gradients(ctx.layer, grad, x.to(grad.dtype), made[0].detach().to(grad.dtype), needed[0])
        pairs = [(m, g) for m, g in zip(made, found[1:], strict=False) if m.requires_grad]
        trained = [tensor for tensor, wanted in zip(own, needed[1:], strict=True) if wanted]
        grads = torch.autograd.grad([m for m, _ in pairs], trained, [g for _, g in pairs], allow_unused=True)
        each = iter(grads)
        mine = None if found[0] is None else found[0].to(x.dtype)
        return None, None, None, mine, *(next(each) if wanted else None for wanted in needed[1:])


def _gradients(
    layer: nn.Module, grad: Tensor, x: Tensor, weight: Tensor, wanted: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of a layer's input (None if it is not wanted), weight and bias."""
    if isinstance(layer, nn.Conv2d):
        made = torch.ops.aten.convolution_backward(
            grad, x, weight, [weight.shape[0]], layer.stride, layer.padding, layer.dilation, False, [0, 0],
            layer.groups, [wanted, True, True],
        )  # fmt: skip
        return made[0], made[1], made[2]
    rows = grad.flatten(0, -2)
    return grad @ weight if wanted else None, rows.t() @ x.flatten(0, -2), rows.sum(0)
