"""The adapters of one site, by owner; rows of several owners in one call.

The rows of one owner lie together, so each owner's adapter runs on its part. In a compiled pass no shape may depend on
how many rows an owner has: there, owners whose adapters come from equal methods are stacked, each row gathers its own
tensors and the adapter runs under ``vmap`` as if the row were alone; owners of different methods form different stacks,
each run on all rows, and the rows it does not own keep what they had. So one compiled graph serves every mix.

Shape letters: I images, R rows, k entries a row owns (windows).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from garnish.adapters.adapter import Adapter, Method
from garnish.context import ForwardContext, Rows, joined


class Owned(nn.Module):
    """Adapters of one site and level, by number of the owner."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.methods: dict[int, Method] = {}
        #: owners whose task streams begin here
        self.forks: set[int] = set()

    def add(self, owner: int, method: Method, adapter: Adapter) -> None:
        """Put ``adapter``, made by ``method``, in place for ``owner``."""
        assert str(owner) not in self.adapters
        self.adapters[str(owner)] = adapter
        self.methods[owner] = method

    def keep(self, owners: Collection[int]) -> None:
        """Drop the adapters of all others."""
        for owner in set(self.methods).difference(owners):
            del self.adapters[str(owner)], self.methods[owner]
        self.forks.intersection_update(owners)

    def of(self, owner: int) -> Adapter | None:
        """The adapter of one owner, or None where that owner leaves the site alone."""
        if str(owner) not in self.adapters:
            return None
        adapter = self.adapters[str(owner)]
        assert isinstance(adapter, Adapter)
        return adapter

    def alone(self, layer: nn.Module, x: Tensor, args: Any, kwargs: Any, ctx: ForwardContext) -> Tensor:
        """All rows belong to ``ctx.owner``: its adapter runs on the whole tensor."""
        adapter = self.of(ctx.owner)
        if adapter is None:
            return layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        if adapter.in_weight_space:
            return run_layer(layer, x, *_merged(adapter, layer))
        return adapter.after(x, layer(adapter.before(x, ctx), *args, **kwargs), ctx)

    def acts_in(self, ctx: ForwardContext) -> bool:
        """Whether any owner of the streams has an adapter here."""
        assert ctx.streams is not None
        if ctx.kept is not None and id(self) in ctx.kept:
            return True
        return any(owner in self.methods for owner in ctx.streams.present)

    def streamed(self, layer: nn.Module, x: Tensor, args: Any, kwargs: Any, ctx: ForwardContext) -> Tensor:
        """Images' own rows and task streams: the frozen module runs on the images' rows alone.

        ``y_t = after_t(x_t, y)`` with y of the image's own row (Agiza et al., MTLoRA, CVPR 2024, section 3.2): so each
        task costs its adapter and nothing of the module.
        """
        streams = ctx.streams
        assert streams is not None
        alone = replace(ctx, streams=None, kept=None, ends=False)
        if ctx.kept is not None and id(self) in ctx.kept:  # one stream for itself, after the images' own rows
            base = streams.take(ctx.kept[id(self)], ctx.num_images)
            return self._after(x, base, replace(alone, rows=streams))
        own, beside = x, x[:0]
        if ctx.kept is None and self.forks.isdisjoint(streams.present):
            entries = x.shape[0] // (ctx.num_images + streams.images.shape[0])
            own, beside = x[: ctx.num_images * entries], x[ctx.num_images * entries :]
        shared = self.of(ctx.owner)
        entered = own if shared is None else shared.before(own, alone)
        frozen: Tensor = layer(entered, *args, **kwargs)
        adapted, read = (frozen, own) if shared is None else shared.fork(own, frozen, alone)
        base = adapted if self._on_adapted(streams) else frozen
        if ctx.kept is not None:
            ctx.kept[id(self)] = base
            return adapted
        if streams.counts is None:
            beside = beside if beside.shape[0] else streams.take(read, ctx.num_images)
            done = self._after(beside, streams.take(base, ctx.num_images), replace(alone, rows=streams))
            return done if ctx.ends else torch.cat([adapted, done])
        if ctx.ends and not beside.shape[0] and streams.is_every(ctx.num_images):
            stacks = self._stacks(replace(alone, rows=streams))
            if len(stacks) == 1 and stacks[0].covers_all:
                return stacks[0].spread(read, base, alone)
        rows = streams.images.shape[0] + (0 if ctx.ends else ctx.num_images)
        return joined(self._one_by_one(read, beside, adapted, base, ctx), rows * base.shape[0] // ctx.num_images)

    def _one_by_one(
        self, read: Tensor, beside: Tensor, adapted: Tensor, base: Tensor, ctx: ForwardContext
    ) -> Iterator[Tensor]:
        """The images' own rows, unless streams end here, and each task's; where they begin, of ``read``."""
        assert ctx.streams is not None
        if not ctx.ends:
            yield adapted
        apart = ctx.streams.by_owner()
        parts = ctx.streams.split(beside) if beside.shape[0] else [None] * len(apart)
        alone = replace(ctx, streams=None, ends=False)
        for part, stream in zip(parts, apart, strict=True):
            if stream.images.shape[0]:
                x = stream.take(read, ctx.num_images) if part is None else part
                yield self._after(x, stream.take(base, ctx.num_images), replace(alone, rows=stream))

    def _on_adapted(self, streams: Rows) -> bool:
        for owner in streams.present:
            part = self.of(owner)
            if part is not None:
                return part.on_adapted
        return True

    def mixed(self, layer: nn.Module, x: Tensor, args: Any, kwargs: Any, ctx: ForwardContext) -> Tensor:
        """Rows of several owners: each row as if it were alone."""
        assert ctx.rows is not None
        if ctx.rows.counts is None:
            return self._mixed_whole(layer, x, args, kwargs, ctx)
        own = [self.of(owner) for owner in ctx.rows.present]
        if any(a is not None and a.in_weight_space for a in own):
            parts = []
            for owner, part in zip(ctx.rows.present, ctx.rows.split(x), strict=True):
                parts.append(self.alone(layer, part, args, kwargs, replace(ctx, rows=None, owner=owner)))
            return torch.cat(parts)
        entered = x
        if any(a is not None and type(a).before is not Adapter.before for a in own):
            entered = self._by_owner("before", ctx, x)
        return self._after(x, layer(entered, *args, **kwargs), ctx)

    def _after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """The door ``after`` of each row's owner."""
        assert ctx.rows is not None
        if ctx.rows.counts is not None:
            return self._by_owner("after", ctx, x, y)
        for stack in self._stacks(ctx):
            y = stack.select(stack.call("after", ctx, x, y), y, ctx)
        return y

    def _by_owner(self, door: Literal["before", "after"], ctx: ForwardContext, *streams: Tensor) -> Tensor:
        """Run a door on the rows of each owner in turn; rows of owners without an adapter keep the last stream."""
        assert ctx.rows is not None
        done = []
        for owner, *parts in zip(ctx.rows.present, *map(ctx.rows.split, streams), strict=True):
            adapter = self.of(owner)
            if parts[-1].shape[0]:
                row = replace(ctx, rows=None, owner=owner)
                done.append(parts[-1] if adapter is None else adapter(door, *parts, row))
        return torch.cat(done) if len(done) > 1 else done[0]  # cat copies even one part

    def _mixed_whole(self, layer: nn.Module, x: Tensor, args: Any, kwargs: Any, ctx: ForwardContext) -> Tensor:
        stacks = self._stacks(ctx)
        entered = x
        for stack in stacks:
            if stack.edits_input:
                entered = stack.select(stack.call("before", ctx, x), entered, ctx)
        if len(stacks) == 1 and stacks[0].in_weight_space and stacks[0].covers_all:
            return stacks[0].call_layer(layer, x, ctx)
        y: Tensor = layer(entered, *args, **kwargs)
        for stack in stacks:
            done = stack.call_layer(layer, x, ctx) if stack.in_weight_space else stack.call("after", ctx, x, y)
            y = stack.select(done, y, ctx)
        return y

    def _stacks(self, ctx: ForwardContext) -> list[_Stack]:
        assert ctx.rows is not None
        groups: list[tuple[Method, list[int], list[Adapter]]] = []
        for position, owner in enumerate(ctx.rows.present):
            adapter = self.of(owner)
            if adapter is None:
                continue
            for method, positions, adapters in groups:
                # a frozen owner's dropout must not act because another owner of its method trains, nor the reverse
                alike = type(adapters[0]) is type(adapter) and adapters[0].training == adapter.training
                if method == self.methods[owner] and alike:
                    positions.append(position)
                    adapters.append(adapter)
                    break
            else:
                groups.append((self.methods[owner], [position], [adapter]))
        return [_Stack(positions, adapters, len(ctx.rows.present)) for _, positions, adapters in groups]


class _Stack:
    """Adapters of equal build, and which positions of ``present`` they serve."""

    def __init__(self, positions: list[int], adapters: list[Adapter], num_present: int) -> None:
        self.adapters = adapters
        self.first = adapters[0]
        self.in_weight_space = self.first.in_weight_space
        self.edits_input = type(self.first).before is not Adapter.before
        self.covers_all = len(positions) == num_present
        #: position in ``present`` → index in the stack; rows of others get 0, and are left out by ``select``
        self.index_of = [positions.index(p) if p in positions else 0 for p in range(num_present)]
        self.member = [p in positions for p in range(num_present)]

    def tensors(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Each tensor of the adapters, gathered by row: (R, …)."""
        index = self._rows(ctx)
        return {name: tensor.index_select(0, index) for name, tensor in self._stacked().items()}

    def call(self, door: str, ctx: ForwardContext, *streams: Tensor) -> Tensor:
        """Run a door for every row with the row's own tensors: (R·k, …) → (R·k, …)."""
        row = replace(ctx, rows=None)
        if self.first.convolves:
            index, streams = self._rows(ctx), tuple(streams)
            done = ctx.by_row(self.adapters[0](door, *streams, row))
            for number, adapter in enumerate(self.adapters[1:], start=1):
                mine = (index == number).view(-1, *[1] * (done.ndim - 1))
                done = torch.where(mine, ctx.by_row(adapter(door, *streams, row)), done)
            return done.flatten(0, 1)
        module = self.first.for_row()[0]

        def one(tensors: dict[str, Tensor], *own: Tensor) -> Any:
            return _call_with(module, tensors, (door, *own, row))

        split = [ctx.by_row(s) for s in streams]
        out = _per_row(one, self.tensors(ctx), split)
        return out.flatten(0, 1)

    def spread(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Run ``after`` on the same rows for each adapter of the stack: (I, …) → (T·I, …), in one go."""
        module = self.first.for_row()[0]

        def one(tensors: dict[str, Tensor]) -> Any:
            return _call_with(module, tensors, ("after", x, y, ctx))

        return _per_row(one, self._stacked(), []).flatten(0, 1)

    def call_layer(self, layer: nn.Module, x: Tensor, ctx: ForwardContext) -> Tensor:
        """Run the frozen layer with each row's own merged weight (R weights at once: meant for few rows)."""
        pairs = [_merged(a, layer) for a in self.adapters]
        index = self._rows(ctx)
        tensors = {"weight": torch.stack([w for w, _ in pairs]).index_select(0, index)}
        biases = [b for _, b in pairs if b is not None]
        if biases:
            tensors["bias"] = torch.stack(biases).index_select(0, index)

        def one(own: dict[str, Tensor], x: Tensor) -> Tensor:
            if isinstance(layer, nn.Linear):
                # the bias apart: Dynamo does not trace a mapped linear layer with a bias of its own for each row
                y = F.linear(x, own["weight"])
                return y + own["bias"] if biases else y
            return run_layer(layer, x, own["weight"], own.get("bias"))

        return _per_row(one, tensors, [ctx.by_row(x)]).flatten(0, 1)

    def select(self, done: Tensor, former: Tensor, ctx: ForwardContext) -> Tensor:
        """``done`` for the stack's own rows, ``former`` for all others."""
        if self.covers_all:
            return done
        assert ctx.rows is not None
        own = torch.tensor(self.member, device=done.device).index_select(0, ctx.rows.owners)
        split = ctx.by_row(done)
        own = own.view(-1, *[1] * (split.ndim - 1))
        return torch.where(own, split, ctx.by_row(former)).flatten(0, 1)

    def _stacked(self) -> dict[str, Tensor]:
        """Each tensor of the adapters: (adapters of the stack, …)."""
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


def _call_with(module: nn.Module, tensors: dict[str, Tensor], args: tuple[Any, ...]) -> Any:
    """``functional_call``, which puts the tensors into the module itself for as long as it runs.

    Outside of graphs, where another thread may be running the same adapter, they go into a copy that shares all else.
    """
    if not torch.compiler.is_compiling():
        module = _shell(module)
    return functional_call(module, tensors, args)


def _shell(module: nn.Module) -> nn.Module:
    """A copy of a module's tree with tables of its own for tensors and modules, and what they hold in common."""
    shell = copy.copy(module)
    shell._parameters, shell._buffers = dict(module._parameters), dict(module._buffers)
    shell._modules = {name: None if child is None else _shell(child) for name, child in module._modules.items()}
    return shell


def _merged(adapter: Adapter, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    pair = adapter.merged(layer.weight, layer.bias)  # type: ignore[arg-type]
    assert pair is not None, "an adapter in weight space must merge"
    return pair


def run_layer(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The map of a frozen linear layer or convolution with another weight and bias."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    assert isinstance(layer, nn.Conv2d)
    out: Tensor = layer._conv_forward(x, weight, bias)
    return out
