"""Stacks of adapters with equal architecture, each run on all rows of a compiled pass at once under ``vmap``.

In a compiled pass no shape may depend on how many rows an owner has. Adapters from equal methods are stacked, each row
gathers its own owner's tensors, and the adapter runs under ``vmap`` as if the row were alone. Owners of different
methods form different stacks; each stack runs on all rows, and rows of other owners keep their values. So one compiled
graph serves every mix.

Shape letters: I images, R rows, k entries a row owns (windows), T adapters of a stack.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from garnish.engine.adapter import Adapter
from garnish.engine.context import ForwardContext


@final
class Stack:
    """Adapters with equal architecture, and the positions in ``present`` of their owners."""

    def __init__(self, positions: list[int], adapters: list[Adapter], num_present: int) -> None:
        self.adapters = adapters
        self.first = adapters[0]
        self.in_weight_space = self.first.in_weight_space
        self.edits_input = type(self.first).before is not Adapter.before
        self.covers_all = len(positions) == num_present
        #: position in ``present`` → index in the stack; other owners get 0, and ``select`` discards their rows
        self.index_of = [positions.index(p) if p in positions else 0 for p in range(num_present)]
        self.member = [p in positions for p in range(num_present)]

    def tensors(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Name → tensor of the adapters, gathered by row: (R, …)."""
        index = self._rows(ctx)
        return {name: tensor.index_select(0, index) for name, tensor in self._stacked().items()}

    def call(self, step: str, ctx: ForwardContext, *streams: Tensor) -> Tensor:
        """Run ``before`` or ``after`` on every row with the row's own tensors: (R·k, …) → (R·k, …)."""
        row = replace(ctx, rows=None)
        if self.first.convolves:
            index, streams = self._rows(ctx), tuple(streams)
            done = ctx.by_row(self.adapters[0](step, *streams, row))
            for number, adapter in enumerate(self.adapters[1:], start=1):
                mine = (index == number).view(-1, *[1] * (done.ndim - 1))
                done = torch.where(mine, ctx.by_row(adapter(step, *streams, row)), done)
            return done.flatten(0, 1)
        module = self.first.for_row()[0]

        def one(tensors: dict[str, Tensor], *own: Tensor) -> Tensor:
            out: Tensor = call_with(module, tensors, (step, *own, row))
            return out

        split = [ctx.by_row(s) for s in streams]
        out = _per_row(one, self.tensors(ctx), split)
        return out.flatten(0, 1)

    def spread(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Run ``after`` of every adapter of the stack on the same rows, in one call: (I, …) → (T·I, …)."""
        module = self.first.for_row()[0]

        def one(tensors: dict[str, Tensor]) -> Tensor:
            out: Tensor = call_with(module, tensors, ("after", x, y, ctx))
            return out

        return _per_row(one, self._stacked(), []).flatten(0, 1)

    def call_layer(self, layer: nn.Module, x: Tensor, ctx: ForwardContext) -> Tensor:
        """Run the frozen layer with each row's own merged weight; R weights are in memory, so for few rows."""
        pairs = [merged_of(a, layer) for a in self.adapters]
        index = self._rows(ctx)
        tensors = {"weight": torch.stack([w for w, _ in pairs]).index_select(0, index)}
        biases = [b for _, b in pairs if b is not None]
        if biases:
            tensors["bias"] = torch.stack(biases).index_select(0, index)

        def one(own: dict[str, Tensor], x: Tensor) -> Tensor:
            if isinstance(layer, nn.Linear):
                # the bias is added separately: Dynamo cannot trace a vmapped linear layer with a bias per row
                y = F.linear(x, own["weight"])
                return y + own["bias"] if biases else y
            return run_layer(layer, x, own["weight"], own.get("bias"))

        return _per_row(one, tensors, [ctx.by_row(x)]).flatten(0, 1)

    def select(self, done: Tensor, former: Tensor, ctx: ForwardContext) -> Tensor:
        """``done`` for rows of the stack's owners, ``former`` for all others."""
        if self.covers_all:
            return done
        assert ctx.rows is not None
        own = torch.tensor(self.member, device=done.device).index_select(0, ctx.rows.owners)
        split = ctx.by_row(done)
        own = own.view(-1, *[1] * (split.ndim - 1))
        return torch.where(own, split, ctx.by_row(former)).flatten(0, 1)

    def _stacked(self) -> dict[str, Tensor]:
        """Name → tensor of the adapters, stacked: (T, …)."""
        state = [a.for_row()[1] for a in self.adapters]
        return {name: torch.stack([s[name] for s in state]) for name in state[0]}

    def _rows(self, ctx: ForwardContext) -> Tensor:
        assert ctx.rows is not None
        if self.index_of == list(range(len(self.adapters))):
            return ctx.rows.owners
        return torch.tensor(self.index_of, device=ctx.rows.owners.device).index_select(0, ctx.rows.owners)


def _per_row(function: Callable[..., Tensor], tensors: dict[str, Tensor], streams: list[Tensor]) -> Tensor:
    out: Tensor = vmap(function, randomness="different")(tensors, *streams)
    return out


def call_with(module: nn.Module, tensors: dict[str, Tensor], args: tuple[object, ...]) -> Any:
    """``functional_call`` that is safe when other threads run the same adapter.

    It replaces the module's tensors while it runs; outside of graphs they go into a shallow copy of the module instead.
    """
    if not torch.compiler.is_compiling():
        module = _shell(module)
    return functional_call(module, tensors, args)


def _shell(module: nn.Module) -> nn.Module:
    """A shallow copy of a module tree: new tables of tensors and submodules, the same tensors and attributes."""
    shell = copy.copy(module)
    shell._parameters, shell._buffers = dict(module._parameters), dict(module._buffers)
    shell._modules = {name: None if child is None else _shell(child) for name, child in module._modules.items()}
    return shell


def merged_of(adapter: Adapter, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer after an adapter in weight space is merged into it."""
    pair = adapter.merged(layer.weight, layer.bias)  # type: ignore[arg-type]
    assert pair is not None, "an adapter in weight space must merge"
    return pair


def run_layer(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Run a frozen linear layer or convolution with another weight and bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    assert isinstance(layer, nn.Conv2d)
    out: Tensor = layer._conv_forward(x, weight, bias)
    return out
