"""A frozen layer run with the weight that an adapter makes of its own, which is made again in the backward pass.

Autograd would keep the new weight and all that it was made by way of: several tensors of the weight's size for each
layer. Here only the layer's input and the adapter's own tensors are kept.

Shape letters: o output width, i input width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from garnish.engine.adapter import Adapter
from garnish.engine.pass_state import Autocast
from garnish.engine.stacks import call_with, run_layer


def run_merged(adapter: Adapter, layer: nn.Module, x: Tensor) -> Tensor:
    """The output of a linear layer or convolution with an adapter in weight space: (…, i) → (…, o), or maps."""
    autocast = Autocast.now()
    kind = autocast.of(x)
    x = x if kind is None else x.to(kind)
    names, own = zip(*adapter.named_parameters(), strict=True)
    given = x.flatten(0, -2) if isinstance(layer, nn.Linear) else x
    with torch._C.DisableTorchFunction():
        out: Tensor = _Merged.apply(_Layer(adapter, layer, names, autocast), given, layer.weight, layer.bias, *own)
        # here: a view that a function returns takes no writes in place
        return out.view(*x.shape[:-1], out.shape[-1]) if isinstance(layer, nn.Linear) else out


class _Layer(NamedTuple):
    adapter: Adapter
    layer: nn.Module
    names: tuple[str, ...]
    autocast: Autocast

    def merged(self, weight: Tensor, bias: Tensor | None, own: Sequence[Tensor]) -> list[Tensor]:
        """The weight, and the bias if there is one, that the adapter makes with these tensors as its own."""
        made = call_with(self.adapter, dict(zip(self.names, own, strict=True)), ("merged", weight, bias))
        return [tensor for tensor in made if tensor is not None]


@final
class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, at: _Layer, x: Tensor, weight: Tensor, bias: Tensor | None, *own: Tensor) -> Tensor:
        ctx.at = at
        ctx.save_for_backward(x, weight, bias, *own)
        made = at.merged(weight, bias, own)
        return run_layer(at.layer, x, made[0], made[1] if len(made) > 1 else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *kept = ctx.saved_tensors
        twice, needed = torch.is_grad_enabled(), ctx.needs_input_grad[2:]  # with a graph, to be differentiated again
        given = kept if twice else [_leaf(tensor, n) for tensor, n in zip(kept, needed, strict=True)]
        with torch.enable_grad(), ctx.at.autocast.again():
            made = ctx.at.merged(given[0], given[1], given[2:])
        used = made[0] if twice else made[0].detach()
        found = _gradients(ctx.at.layer, grad, x.to(grad.dtype), used.to(grad.dtype), ctx.needs_input_grad[1])
        pairs = [(m, g.to(m.dtype)) for m, g in zip(made, found[1:], strict=False) if m.requires_grad]
        trained = [tensor for tensor, n in zip(given, needed, strict=True) if n]
        outputs, grads = [m for m, _ in pairs], [g for _, g in pairs]
        each = iter(torch.autograd.grad(outputs, trained, grads, create_graph=twice, allow_unused=True))
        mine = None if found[0] is None else found[0].to(x.dtype)
        return None, mine, *(next(each) if n else None for n in needed)


def _leaf(tensor: Tensor | None, needed: bool) -> Tensor | None:
    return None if tensor is None else tensor.detach().requires_grad_(needed)


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
