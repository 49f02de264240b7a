"""The wrapper that replaces a frozen module and runs adapters on it: of one owner, of several, or of task streams.

The rows of one owner are adjacent, so each owner's adapter runs on its slice; in a compiled pass, where no shape may
depend on how many rows an owner has, :mod:`garnish.engine.stacks` is used.

Shape letters: I images, R rows, k entries a row owns (windows).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, final

import torch
from torch import Tensor, nn

from garnish.engine.adapter import Adapter, Method
from garnish.engine.blocks import Wrapper, has_hooks
from garnish.engine.context import Binding, ForwardContext, Kept, Rows, Whose, joined
from garnish.engine.memory import is_transformed
from garnish.engine.merged_layer import run_merged
from garnish.engine.remaking import keep_for_many
from garnish.engine.stacks import Stack, merged_of, run_layer


@final
class Adapted(Wrapper):
    """Wraps a frozen module at which owners may have adapters; the owners hold them, not the wrapper.

    It exposes ``in_features`` and ``out_features`` of the wrapped module and nothing else, in particular not
    ``weight``: code that reads the weight directly would bypass the adapter, so it must fail.

    Args:
        layer: the module, or the wrapper of the level below.
        key: the key of the adapters here within their owners.
        binding: gives the context of the pass.
    """

    def __init__(self, layer: nn.Module, key: str, binding: Binding) -> None:
        super().__init__()
        self.layer = layer
        self.key = key
        self.binding = binding

    @property
    def in_features(self) -> int:
        """Input width of the wrapped linear layer."""
        return self.layer.in_features  # type: ignore[return-value]

    @property
    def out_features(self) -> int:
        """Output width of the wrapped linear layer."""
        return self.layer.out_features  # type: ignore[return-value]

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Run the wrapped module with the adapter of each row's owner; masks and rotary tables are passed on."""
        ctx = self.binding.current()
        if ctx.streams is not None and self.acts_in(ctx):
            return self.streamed(x, args, kwargs, ctx, self.binding.kept)
        if ctx.rows is None:
            return self.alone(x, args, kwargs, ctx)
        return self.mixed(x, args, kwargs, ctx)

    def of(self, owner: Whose) -> Adapter | None:
        """The adapter of an owner here, or None if it has none."""
        found: Adapter | None = None if owner is None else owner.at(self.key)
        return found

    def alone(self, x: Tensor, args: tuple[object, ...], kwargs: Mapping[str, object], ctx: ForwardContext) -> Tensor:
        """Run with the adapter of ``ctx.owner``, to which all rows belong."""
        adapter = self.of(ctx.owner)
        if adapter is None:
            return self.layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        if adapter.in_weight_space:
            return (
                run_merged(adapter, self.layer, x)
                if ctx.lean
                else run_layer(self.layer, x, *merged_of(adapter, self.layer))
            )
        if ctx.lean and not (args or kwargs or has_hooks(self.layer)):
            at_once = adapter.at_once(x, self.layer)
            if at_once is not None:
                return at_once
        y: Tensor = self.layer(adapter.before(x, ctx), *args, **kwargs)
        return y if self._is_own(y) and adapter.add_to(x, y) else adapter.after(x, y, ctx)

    def _is_own(self, y: Tensor) -> bool:
        """Whether an output of the frozen layer may be written to: nobody else holds it, and no gradient needs it."""
        return (
            not torch.is_grad_enabled()
            and type(self.layer) is nn.Linear
            and y.is_contiguous()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled(y.device.type)
            and not is_transformed()
            and not has_hooks(self.layer)
        )

    def acts_in(self, ctx: ForwardContext) -> bool:
        """Whether any owner of the streams has an adapter here."""
        assert ctx.streams is not None
        if ctx.part == "stream" and self.key in self.binding.kept:
            return True
        return any(self.of(owner) is not None for owner in ctx.streams.present)

    def streamed(
        self, x: Tensor, args: tuple[object, ...], kwargs: Mapping[str, object], ctx: ForwardContext, kept: Kept
    ) -> Tensor:
        """Images' own rows plus task streams; the frozen module runs on the images' rows only.

        ``y_t = after_t(x_t, y)`` with y of the image's own row (Agiza et al., MTLoRA, CVPR 2024, section 3.2), so a
        further task costs its adapter but no run of the module.
        """
        streams = ctx.streams
        assert streams is not None
        alone = replace(ctx, streams=None, part="all", ends=False)
        if ctx.part == "stream" and self.key in kept:  # a single stream, run after the images' own rows
            base = streams.take(kept[self.key], ctx.num_images)
            return self._after(x, base, replace(alone, rows=streams))
        own, beside = x, x[:0]
        if ctx.part == "all" and not any(self.key in owner.forks for owner in streams.present):
            entries = x.shape[0] // (ctx.num_images + streams.images.shape[0])
            own, beside = x[: ctx.num_images * entries], x[ctx.num_images * entries :]
        shared = self.of(ctx.owner)
        entered = own if shared is None else shared.before(own, alone)
        frozen: Tensor = self.layer(entered, *args, **kwargs)
        adapted, read = (frozen, own) if shared is None else shared.fork(own, frozen, alone)
        base = adapted if self._on_adapted(streams) else frozen
        if ctx.lean:
            keep_for_many(base)  # what the images' rows and each stream have here is this and little more
        if ctx.part != "all":
            kept[self.key] = base
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
        """The images' own rows, unless streams end here, then each task's; streams that begin here read ``read``."""
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

    def mixed(self, x: Tensor, args: tuple[object, ...], kwargs: Mapping[str, object], ctx: ForwardContext) -> Tensor:
        """Rows of several owners; the result of each row is as if it were alone."""
        assert ctx.rows is not None
        if ctx.rows.counts is None:
            return self._mixed_whole(x, args, kwargs, ctx)
        own = [self.of(owner) for owner in ctx.rows.present]
        if any(a is not None and a.in_weight_space for a in own):
            parts = []
            for owner, part in zip(ctx.rows.present, ctx.rows.split(x), strict=True):
                parts.append(self.alone(part, args, kwargs, replace(ctx, rows=None, owner=owner)))
            return torch.cat(parts)
        entered = x
        if any(a is not None and type(a).before is not Adapter.before for a in own):
            entered = self._by_owner("before", ctx, x)
        y: Tensor = self.layer(entered, *args, **kwargs)
        if not self._is_own(y):
            return self._after(x, y, ctx)
        for adapter, owner, taken, part in zip(own, ctx.rows.present, *map(ctx.rows.split, (x, y)), strict=True):
            if adapter is not None and part.shape[0] and not adapter.add_to(taken, part):
                part.copy_(adapter.after(taken, part, replace(ctx, rows=None, owner=owner)))
        return y

    def _after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Run ``after`` of each row's owner."""
        assert ctx.rows is not None
        if ctx.rows.counts is not None:
            return self._by_owner("after", ctx, x, y)
        for stack in self._stacks(ctx):
            y = stack.select(stack.call("after", ctx, x, y), y, ctx)
        return y

    def _by_owner(self, step: Literal["before", "after"], ctx: ForwardContext, *streams: Tensor) -> Tensor:
        """Run ``before`` or ``after`` of each owner on its rows; owners without an adapter keep the last stream."""
        assert ctx.rows is not None
        done = []
        for owner, *parts in zip(ctx.rows.present, *map(ctx.rows.split, streams), strict=True):
            adapter = self.of(owner)
            if parts[-1].shape[0]:
                row = replace(ctx, rows=None, owner=owner)
                done.append(parts[-1] if adapter is None else adapter(step, *parts, row))
        return torch.cat(done) if len(done) > 1 else done[0]  # cat copies even one part

    def _mixed_whole(
        self, x: Tensor, args: tuple[object, ...], kwargs: Mapping[str, object], ctx: ForwardContext
    ) -> Tensor:
        stacks = self._stacks(ctx)
        entered = x
        for stack in stacks:
            if stack.edits_input:
                entered = stack.select(stack.call("before", ctx, x), entered, ctx)
        if len(stacks) == 1 and stacks[0].in_weight_space and stacks[0].covers_all:
            return stacks[0].call_layer(self.layer, x, ctx)
        y: Tensor = self.layer(entered, *args, **kwargs)
        for stack in stacks:
            done = stack.call_layer(self.layer, x, ctx) if stack.in_weight_space else stack.call("after", ctx, x, y)
            y = stack.select(done, y, ctx)
        return y

    def _stacks(self, ctx: ForwardContext) -> list[Stack]:
        assert ctx.rows is not None
        groups: list[tuple[Method, list[int], list[Adapter]]] = []
        for position, owner in enumerate(ctx.rows.present):
            adapter = self.of(owner)
            if adapter is None:
                continue
            for method, positions, adapters in groups:
                # owners in training and in evaluation mode are not stacked together: their dropout differs
                alike = type(adapters[0]) is type(adapter) and adapters[0].training == adapter.training
                if method == owner.places[self.key].method and alike:
                    positions.append(position)
                    adapters.append(adapter)
                    break
            else:
                groups.append((owner.places[self.key].method, [position], [adapter]))
        return [Stack(positions, adapters, len(ctx.rows.present)) for _, positions, adapters in groups]
