"""The part of a trunk that nobody changes: where it ends, the state there, and passes that go on from a kept state.

Shape letters: I images, R rows of the stream, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, final

import torch
from torch import Tensor, nn

from garnish.backbones.loop import Flow, Watch, end_of, run, tapped
from garnish.backbones.taps import TaskMaps
from garnish.backbones.walk import feature_units
from garnish.context import NOBODY, ForwardContext, Rows
from garnish.rows import pick

if TYPE_CHECKING:
    from garnish.backbones.backbone import Backbone


@final
@dataclass(frozen=True, eq=False)
class TrunkState:
    """What the bare trunk has made of some pictures before one of its units.

    Attributes:
        unit: the unit that comes next; the number of units where all maps are there.
        size: (H, W) of the pictures, without padding.
        grid: of the stream.
        x: the stream, (I, N, C) or (I, H, W, C); None where no unit is left.
        maps: raw feature maps read so far, each (I, C, H, W).
        by_stage: for side networks, the maps by stage after its entrance and each block; None: none were kept.
        extras: what the stem gave beside the stream (a rotary table): it depends on the grid alone, not on the picture.
    """

    unit: int
    size: tuple[int, int]
    grid: tuple[int, int]
    x: Tensor | None
    maps: tuple[Tensor, ...]
    by_stage: tuple[tuple[Tensor, ...], ...] | None = None
    extras: Mapping[str, Tensor | None] = field(default_factory=dict)

    def __len__(self) -> int:
        first = self.maps[0] if self.x is None else self.x
        return first.shape[0]

    def pick(self, rows: Tensor | slice | None) -> TrunkState:
        """The state of some of the pictures; None stands for all."""
        return self if rows is None else self._each(lambda x: pick(x, rows))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TrunkState:
        """The same on another device."""
        extras = {n: None if x is None else x.to(device, non_blocking=non_blocking) for n, x in self.extras.items()}
        return replace(self._each(lambda x: x.to(device, non_blocking=non_blocking)), extras=extras)

    @classmethod
    def stack(cls, states: Sequence[TrunkState]) -> TrunkState:
        """One state of the pictures of several, all of one size and unit."""
        one = states[0]
        assert all((s.unit, s.size, s.grid) == (one.unit, one.size, one.grid) for s in states)
        others = [dict(s.named()) for s in states]
        joined: dict[int, Tensor] = {}
        for name, x in one.named():
            if id(x) not in joined:  # what stands in two places is stacked once
                joined[id(x)] = _cat([other[name] for other in others])
        return one._each(lambda x: joined[id(x)])

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all that differs by picture."""
        if self.x is not None:
            yield "x", self.x
        for index, x in enumerate(self.maps):
            yield f"maps.{index}", x
        for stage, maps in enumerate(self.by_stage or ()):
            for index, x in enumerate(maps):
                yield f"stages.{stage}.{index}", x

    @classmethod
    def of_names(
        cls,
        named: Mapping[str, Tensor],
        extras: Mapping[str, Tensor | None],
        unit: int,
        size: tuple[int, int],
        grid: tuple[int, int],
    ) -> Self:
        """The inverse of :meth:`named`."""
        by_stage: dict[int, dict[int, Tensor]] = {}
        for name, x in named.items():
            if name.startswith("stages."):
                stage, index = map(int, name.split(".")[1:])
                by_stage.setdefault(stage, {})[index] = x
        maps = {int(name.split(".")[1]): x for name, x in named.items() if name.startswith("maps.")}
        stages = tuple(tuple(by_stage[s][i] for i in sorted(by_stage[s])) for s in sorted(by_stage))
        return cls(unit, size, grid, named.get("x"), tuple(maps[i] for i in sorted(maps)), stages or None, extras)

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrunkState:
        done: dict[int, Tensor] = {}

        def one(x: Tensor) -> Tensor:
            if id(x) not in done:
                done[id(x)] = change(x)
            return done[id(x)]

        return replace(
            self,
            x=None if self.x is None else one(self.x),
            maps=tuple(map(one, self.maps)),
            by_stage=None if self.by_stage is None else tuple(tuple(map(one, maps)) for maps in self.by_stage),
        )


def _cat(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat`` that leaves maps in the order of memory they have: channels last, where the trunk's are."""
    if parts[0].ndim == 4 and parts[0].stride(1) == 1:
        return torch.cat([x.permute(0, 2, 3, 1) for x in parts]).permute(0, 3, 1, 2)
    return torch.cat(list(parts))


# ---- where the prefix ends ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """The first unit that one of some owners changes: its number, its name, and the owner."""

    unit: int
    name: str
    owner: int


def units(trunk: Backbone) -> Iterator[tuple[int, str, nn.Module]]:
    """(number, name, module) of every unit, in forward order."""
    yield 0, "stem", trunk.stem
    unit = 0
    for s, stage in enumerate(trunk.stages):
        unit += 1
        yield unit, f"stages.{s}.enter", stage.enter
        for b, block in enumerate(stage.blocks):
            for role, residual in block.items():
                unit += 1
                yield unit, f"stages.{s}.blocks.{b}.{role}", residual
        unit += 1
        yield unit, f"stages.{s}.leave", stage.leave


def first_change(trunk: Backbone, owners: Collection[int], below: int | None = None) -> Change | None:
    """The first unit that one of the owners changes, as its modules stand now; None where none does.

    Adapters of feature maps and side networks change no unit: they read what the bare trunk gives.

    Args:
        trunk: adapted or not.
        owners: parts of an owner are owners of their own here.
        below: only units before this one are looked at; None: all.
    """
    prompting = next((owner for owner in owners if owner in trunk.prompts), None)
    tuned: dict[tuple[int, str], int] = {}
    names = {name: owner for owner in owners for name, _ in trunk.tuned.of(owner)}
    if names:
        tuned = {(id(module), leaf): names[name] for name, module, leaf in trunk.named_slots() if name in names}
    for unit, name, module in units(trunk):
        if below is not None and unit >= below:
            return None
        if unit == 1 and prompting is not None:
            return Change(unit, name, prompting)
        for part in module.modules():
            if getattr(type(part), "is_wrapper", False):
                owner = next((o for o in owners if part.owned.of(o) is not None), None)  # type: ignore[union-attr, operator]
                if owner is not None:
                    return Change(unit, name, owner)
            for leaf in part._parameters:
                if (id(part), leaf) in tuned:
                    return Change(unit, name, tuned[id(part), leaf])
    return None


def resting_units(trunk: Backbone) -> list[int]:
    """Units before which a pass can be taken up again: stages' entrances and ends, blocks' first, and the end."""
    found, unit = [0], 0
    for stage in trunk.stages:
        found.append(unit + 1)
        unit += 1
        for block in stage.blocks:
            found.append(unit + 1)
            unit += len(block)
        found.append(unit + 1)
        unit += 1
    return [*found, unit + 1]


def second_block(trunk: Backbone) -> int:
    """The first unit of the trunk's second block; the number of units where it has one."""
    starts, unit = [], 0
    for stage in trunk.stages:
        unit += 1
        for block in stage.blocks:
            starts.append(unit + 1)
            unit += len(block)
        unit += 1
    return starts[1] if len(starts) > 1 else end_of(trunk)


# ---- to the end of the prefix, and on from there --------------------------------------------------------------------


def run_prefix(
    trunk: Backbone, images: Tensor, size: tuple[int, int], unit: int, *, beside: bool = False
) -> TrunkState:
    """Run the bare trunk, as nobody adapts it, up to a unit.

    Args:
        trunk: adapted or not.
        images: as for :meth:`Backbone.forward`.
        size: (H, W) of the pictures without padding.
        unit: one of :func:`resting_units` but the first; the number of units runs them all.
        beside: keep what side networks read; then all units are run.
    """
    states: list[list[Tensor]] = [[] for _ in trunk.stages]
    watch: Watch | None = (lambda x, index: states[index].append(x)) if beside else None
    ctx = ForwardContext(grid=(0, 0), num_prefix=trunk.num_prefix, owner=NOBODY)
    flow = run(trunk, Flow(images, ctx), None, end=unit, watch=watch)
    over = unit == end_of(trunk)
    return TrunkState(
        unit=unit,
        size=size,
        grid=flow.ctx.grid,
        x=None if over else flow.x,
        maps=tuple(x for x in flow.maps if isinstance(x, Tensor)),  # all: nobody's streams run here
        by_stage=tuple(map(tuple, states)) if beside else None,
        extras={} if over else dict(flow.extras),
    )


def run_from(
    trunk: Backbone, state: TrunkState, ctx: ForwardContext, rows: Rows | None, *, unread: bool = False
) -> tuple[Tensor | TaskMaps, ...]:
    """The maps of a pass that goes on from a kept state: see :meth:`Backbone.forward`."""
    at = None if rows is None else trunk.fork_of(rows.present)
    maps: list[Tensor | TaskMaps] = []
    for index, x in enumerate(state.maps):
        own = replace(ctx, grid=(x.shape[2], x.shape[3]))
        if rows is not None and at is not None and feature_units(trunk.stages, trunk.merged)[index] >= at:
            x, own = x.index_select(0, rows.images), replace(own, rows=rows)
        maps.append(tapped(trunk, trunk.tuned.parts(ctx.owner).taps[index], x, own, unread))
    if state.x is None:
        return tuple(maps)
    x, ctx = state.x, replace(ctx, grid=state.grid)
    if (
        rows is not None and at is not None and at < state.unit
    ):  # rows that differ at the maps before, not in the stream
        x, ctx = x.index_select(0, rows.images), replace(ctx, rows=rows)
    flow = Flow(x, ctx, state.extras, tuple(maps))
    return run(trunk, flow, rows, first=state.unit, unread=unread).maps
