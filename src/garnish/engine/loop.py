"""The block loop: runs a trunk from any unit to any other (:mod:`garnish.engine.units`), for all families.

Shape letters: I images, R rows of the stream, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import final

from torch import Tensor, nn

from garnish.engine.adapted import Adapted
from garnish.engine.blocks import bare
from garnish.engine.context import ForwardContext, Rows
from garnish.engine.maps import TaskMaps
from garnish.engine.memory import Level, may_remake
from garnish.engine.owner import Owner
from garnish.engine.remaking import Remaking
from garnish.engine.rerun import Rerun, Unchanged
from garnish.engine.trunk import Trunk
from garnish.engine.units import Body

#: Called with each map (I, C, H, W) after a stage's entrance and each block, and the stage's number.
Watch = Callable[[Tensor, int], None]


@final
@dataclass(frozen=True, eq=False)
class Flow:
    """State of a pass between two units.

    Attributes:
        x: the stream; before the stem, the pictures.
        ctx: context of the pass at this point.
        extras: extra inputs of the blocks that the stem made (a rotary table).
        maps: feature maps read so far.
    """

    x: Tensor
    ctx: ForwardContext
    extras: Mapping[str, Tensor | None] = field(default_factory=dict)
    maps: tuple[Tensor | TaskMaps, ...] = ()

    def detached(self) -> Flow:
        """The same state, cut off from the graph; what requires a gradient still does."""
        extras = {name: None if x is None else _detached(x) for name, x in self.extras.items()}
        return replace(self, x=_detached(self.x), extras=extras, maps=())


def _detached(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(x.requires_grad)


def run_units(
    trunk: Trunk,
    flow: Flow,
    rows: Rows | None,
    *,
    first: int = 0,
    end: int | None = None,
    watch: Watch | None = None,
    unread: bool = False,
) -> Flow:
    """Run the units from ``first`` up to but without ``end``.

    Args:
        trunk: the trunk.
        flow: the state before unit ``first``.
        rows: the rows that the images fork into; None: no fork.
        first: number of the first unit, not in the middle of a block (``Unit.rests``).
        end: number of the unit to stop before, likewise; None: run to the end.
        watch: called with intermediate maps, see :data:`Watch`.
        unread: return maps that only tasks' own adapters change as :class:`TaskMaps`, to be made later.
    """
    owner: Owner | None = flow.ctx.owner
    body = trunk.body if owner is None else owner.body(trunk.body)
    loop = _Loop(trunk, body, rows, watch, unread)
    end = len(body.units) if end is None else end
    if watch is not None or trunk.memory == "fast" or not may_remake():
        return loop.run(flow, first, end)
    unchanged = Unchanged(partial(_read_by, body, flow.ctx, rows)) if "least" in trunk.levels else None
    changed = _first_changed(flow.ctx, rows, end)
    for level, start, stop in _stretches(body, trunk.levels, first, end):
        while start < min(stop, changed) and not flow.x.requires_grad:  # nothing is kept for a backward pass yet
            flow = loop.run(flow, start, start + 1)
            start += 1
        if start == stop:
            continue
        run = partial(loop.run, first=start, end=stop)
        flow = replace(flow, ctx=replace(flow.ctx, lean=level != "fast"))
        if level == "fast":
            flow = run(flow)
        elif level == "lean":
            with Remaking():
                flow = run(flow)
        else:
            assert unchanged is not None
            made = Rerun(run, replace(flow, maps=()), Flow.detached, flow.x.device, unchanged)()
            flow = replace(made, maps=(*flow.maps, *made.maps))
    return flow


def _acting(ctx: ForwardContext, rows: Rows | None) -> list[Owner]:
    """The owners that act in a pass, and those that they are parts of."""
    tables = [table for table in (rows, ctx.streams) if table is not None]
    owners: list[Owner | None] = [ctx.owner, *(owner for table in tables for owner in table.present)]
    found = [owner for owner in owners if owner is not None]
    return list(dict.fromkeys([*found, *(owner.root for owner in found)]))


def _first_changed(ctx: ForwardContext, rows: Rows | None, end: int) -> int:
    """Number of the first unit that computes something other than in the bare trunk; ``end`` if none does."""
    return min((owner.changes for owner in _acting(ctx, rows) if owner.changes is not None), default=end)


def _read_by(body: Body, ctx: ForwardContext, rows: Rows | None) -> Iterator[Tensor]:
    """The parameters and buffers that a pass may read: of its modules and of the owners that act in it."""
    for module in [body, *_acting(ctx, rows)]:
        yield from module.parameters()
        yield from module.buffers()


def _stretches(body: Body, levels: tuple[Level, ...], first: int, end: int) -> Iterator[tuple[Level, int, int]]:
    """Spans (level, start, end) of units: one per block at ``least``, else as long as the level stays.

    Entrances and exits of stages are cheap in bytes and have the level of the block before them, but at most lean.
    """
    number = sum(unit.kind == "residual" and unit.rests for unit in body.units[:first]) - 1
    spans: list[tuple[Level, int, int]] = []
    for start, stop in body.spans(first, end):
        is_block = body.units[start].kind == "residual"
        number += is_block
        level = levels[max(number, 0)]
        spans.append((level if is_block or level == "fast" else "lean", start, stop))
    for level, group in groupby(spans, key=lambda span: span[0]):
        found = list(group)
        yield from found if level == "least" else [(level, found[0][1], found[-1][2])]


@final
class _Loop:
    """One pass through the units, with what stays the same during it."""

    def __init__(self, trunk: Trunk, body: Body, rows: Rows | None, watch: Watch | None, unread: bool) -> None:
        self.trunk = trunk
        self.body = body
        self.rows = rows
        self.fork = None if rows is None else fork_of(rows.present)
        self.watch = watch
        self.unread = unread

    def run(self, flow: Flow, first: int, end: int) -> Flow:
        x, ctx, extras, maps = flow.x, flow.ctx, flow.extras, flow.maps
        for unit in self.body.units[first:end]:
            if self.rows is not None and unit.number == self.fork:
                x, ctx = x.index_select(0, self.rows.images), replace(ctx, rows=self.rows)
            with self.trunk.binding.bound(ctx):
                if unit.kind == "stem":
                    x, grid, extras = unit.module(x)
                    ctx = replace(ctx, grid=grid)
                elif unit.kind == "enter":
                    x, grid = self.trunk.enter(unit.module, x, ctx)
                    ctx = replace(ctx, grid=grid)
                elif unit.kind == "residual":
                    given = {**extras, "place": (ctx.grid, ctx.num_prefix)}
                    x = unit.module(x, **{name: given[name] for name in bare(unit.module).takes})
                else:
                    x = unit.module(x)
            if unit.reads is not None:
                made = tapped(self.trunk, self.body.taps[unit.reads], ctx.to_map(x), ctx, self.unread)
                maps = (*maps, made)
                x = x if ctx.streams is None else x[: ctx.num_images]
            if unit.kind == "enter" and unit.stage == 0 and ctx.owner is not None and ctx.owner.prompts:
                extras = self.trunk.prompted(extras, ctx.owner.prompts)
                ctx = replace(ctx, num_prefix=ctx.num_prefix + ctx.owner.prompts)
            if self.watch is not None and unit.shows:
                self.watch(ctx.to_map(x), unit.stage)
        return Flow(x, ctx, extras, maps)


def fork_of(present: Iterable[Owner]) -> int | None:
    """Number of the unit before which the rows of these owners fork; None if none of them has adapters.

    Only the owners in the pass count, so that its results stay bit-identical when other owners are added.
    """
    units = [owner.first for owner in present if owner.first is not None]
    return min(units) if units else None


def tapped(trunk: Trunk, tap: nn.Module, x: Tensor, ctx: ForwardContext, unread: bool) -> Tensor | TaskMaps:
    """A map (R, C, H, W) after its tap, as the heads get it; only the streams' rows, if there are streams."""
    if unread and ctx.streams is not None and x.shape[0] == ctx.num_images and _is_own(tap, ctx):
        assert isinstance(tap, Adapted)
        return TaskMaps(tap, x, ctx)
    with trunk.binding.bound(replace(ctx, ends=ctx.streams is not None)):
        made: Tensor = tap(x)
    if ctx.streams is None or _acts(tap, ctx):
        return made
    if made.shape[0] > ctx.num_images:
        return made[ctx.num_images :]
    return ctx.streams.take(made, ctx.num_images)


def _is_own(tap: nn.Module, ctx: ForwardContext) -> bool:
    """Whether a tap has tasks' own adapters only, at one level, without a shared adapter before them."""
    if not isinstance(tap, Adapted) or isinstance(tap.layer, Adapted):
        return False
    return tap.acts_in(ctx) and tap.of(ctx.owner) is None


def _acts(tap: nn.Module, ctx: ForwardContext) -> bool:
    """Whether any owner of the streams has an adapter at a tap, at any of its levels."""
    while isinstance(tap, Adapted):
        if tap.acts_in(ctx):
            return True
        tap = tap.layer
    return False
