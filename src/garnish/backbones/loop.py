"""The one block loop, from any unit to any unit.

A unit is the smallest part of the loop that counts: the stem is 0, then come each stage's entrance, its residuals and
what ends it (:mod:`garnish.backbones.walk` counts the same way).

Shape letters: I images, R rows of the stream, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from garnish.backbones.sites import bare
from garnish.backbones.taps import TaskMaps
from garnish.context import ForwardContext, Rows

if TYPE_CHECKING:
    from garnish.backbones.backbone import Backbone

#: Called with each map (I, C, H, W) after a stage's entrance and each block, and the stage's number.
Watch = Callable[[Tensor, int], None]


@dataclass(frozen=True, eq=False)
class Flow:
    """What runs through the loop.

    Attributes:
        x: the stream; before the stem, the pictures.
        ctx: facts of the pass at this point.
        extras: what the stem gave beside the stream.
        maps: feature maps read so far.
    """

    x: Tensor
    ctx: ForwardContext
    extras: Mapping[str, Any] = field(default_factory=dict)
    maps: tuple[Tensor | TaskMaps, ...] = ()


def run(
    trunk: Backbone,
    flow: Flow,
    rows: Rows | None,
    *,
    first: int = 0,
    end: int | None = None,
    watch: Watch | None = None,
    unread: bool = False,
) -> Flow:
    """Run units ``first`` to ``end`` - 1 (all that follow where it is None).

    Args:
        trunk: whose units.
        flow: what enters unit ``first``, which is the first of a block, or no part of one; so is ``end``.
        rows: what rows the images fork into; None: nothing forks.
        first: see above.
        end: see above.
        watch: see :data:`Watch`.
        unread: as for :meth:`Backbone.forward`.
    """
    x, ctx, extras, maps = flow.x, flow.ctx, flow.extras, list(flow.maps)
    parts = trunk.tuned.parts(ctx.owner)
    unit, last = 0, len(parts.stages) - 1
    end = end_of(trunk) if end is None else end
    if first == 0:
        x, ctx = fork(trunk, x, ctx, rows, unit)
        with trunk.binding.bound(ctx):
            x, grid, extras = parts.stem(x)
        ctx = replace(ctx, grid=grid)
    for index, stage in enumerate(parts.stages):
        unit += 1
        if first <= unit < end:
            x, ctx = fork(trunk, x, ctx, rows, unit)
            with trunk.binding.bound(ctx):
                x, grid = trunk.enter(stage, x, ctx)
                ctx = replace(ctx, grid=grid)
            if index and trunk.merged:
                maps.append(tapped(trunk, parts.taps[index - 1], ctx.to_map(x), ctx, unread))
                x = _without_streams(x, ctx)
            if index == 0 and (prompts := trunk.prompts.get(ctx.owner, 0)):
                ctx = replace(ctx, num_prefix=ctx.num_prefix + prompts)
                extras = trunk.prompted(dict(extras), prompts)
            if watch is not None:
                watch(ctx.to_map(x), index)
        for block in stage.blocks:
            if first <= unit + 1 < end:
                x, ctx = _run_block(trunk, block, x, ctx, extras, rows, unit)
                if watch is not None:
                    watch(ctx.to_map(x), index)
            unit += len(block)
        unit += 1
        if first <= unit < end:
            x, ctx = fork(trunk, x, ctx, rows, unit)
            with trunk.binding.bound(ctx):
                x = stage.leave(x)
            if index == last or not trunk.merged:
                maps.append(tapped(trunk, parts.taps[index], ctx.to_map(x), ctx, unread))
                x = _without_streams(x, ctx)
    return Flow(x, ctx, extras, tuple(maps))


def end_of(trunk: Backbone) -> int:
    """The number of units."""
    return 1 + sum(2 + sum(len(block) for block in stage.blocks) for stage in trunk.stages)


def fork(
    trunk: Backbone, x: Tensor, ctx: ForwardContext, rows: Rows | None, unit: int
) -> tuple[Tensor, ForwardContext]:
    """Give each (image, owner) its own row, once, before the first unit that an owner of this pass adapts."""
    if rows is None or ctx.rows is not None or unit != trunk.fork_of(rows.present):
        return x, ctx
    return x.index_select(0, rows.images), replace(ctx, rows=rows)


def tapped(trunk: Backbone, tap: nn.Module, x: Tensor, ctx: ForwardContext, unread: bool) -> Tensor | TaskMaps:
    """The map (R, C, H, W) as it is handed to heads; that of streams, where there are any."""
    if unread and ctx.streams is not None and x.shape[0] == ctx.num_images and _is_own(tap, ctx):
        return TaskMaps(tap, x, ctx)
    with trunk.binding.bound(replace(ctx, ends=ctx.streams is not None)):
        made: Tensor = tap(x)
    if ctx.streams is None or _acts(tap, ctx):
        return made
    if made.shape[0] > ctx.num_images:
        return made[ctx.num_images :]
    return ctx.streams.take(made, ctx.num_images)


def _without_streams(x: Tensor, ctx: ForwardContext) -> Tensor:
    """What runs on into the next stage."""
    return x if ctx.streams is None else x[: ctx.num_images]


def _run_block(
    trunk: Backbone,
    block: nn.ModuleDict,
    x: Tensor,
    ctx: ForwardContext,
    extras: Mapping[str, Any],
    rows: Rows | None,
    unit: int,
) -> tuple[Tensor, ForwardContext]:
    forked = ctx
    num_units = len(list(block.children()))
    at = None if rows is None or ctx.rows is not None else trunk.fork_of(rows.present)
    if at is not None and unit < at <= unit + num_units:
        forked = replace(ctx, rows=rows)
    extras = {**extras, "place": (ctx.grid, ctx.num_prefix)}

    def body(x: Tensor) -> Tensor:
        here = ctx
        for offset, residual in enumerate(block.children(), start=1):
            x, here = fork(trunk, x, here, rows, unit + offset)
            wanted = {name: extras[name] for name in _takes(residual)}
            with trunk.binding.bound(here):
                x = residual(x, **wanted)
        return x

    if trunk.checkpointing and torch.is_grad_enabled():
        out: Tensor = checkpoint(body, x, use_reentrant=False)
    else:
        out = body(x)
    return out, forked


def _acts(tap: nn.Module, ctx: ForwardContext) -> bool:
    """Whether any owner of the streams has an adapter at a tap, at any of its levels."""
    while getattr(type(tap), "is_wrapper", False):
        if tap.owned.acts_in(ctx):  # type: ignore[union-attr, operator]
            return True
        tap = tap.layer  # type: ignore[assignment]
    return False


def _is_own(tap: nn.Module, ctx: ForwardContext) -> bool:
    """Whether adapters of tasks stand at a tap, in one level and alone: no shared one acts there before them."""
    if not getattr(type(tap), "is_wrapper", False) or getattr(type(tap.layer), "is_wrapper", False):
        return False
    return bool(tap.owned.acts_in(ctx)) and tap.owned.of(ctx.owner) is None  # type: ignore[union-attr, operator]


def _takes(residual: nn.Module) -> tuple[str, ...]:
    takes: tuple[str, ...] = bare(residual).takes
    return takes
