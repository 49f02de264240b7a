"""The first part of a trunk that no owner changes: running it once, keeping the state, and resuming passes from it.

Shape letters: I images, R rows of the stream, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, final

import torch
from torch import Tensor

from garnish.engine.context import ForwardContext, Rows
from garnish.engine.loop import Flow, Watch, fork_of, run_units, tapped
from garnish.engine.maps import TaskMaps, pick
from garnish.engine.owner import Owner
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError


@final
@dataclass(frozen=True, eq=False)
class TrunkState:
    """State of the bare trunk before one of its units, for some pictures.

    Attributes:
        unit: number of the next unit; the number of units if all have run.
        size: (H, W) of the pictures, without padding.
        grid: (H, W) of the stream's grid.
        x: the stream, (I, N, C) or (I, H, W, C); None if no unit is left.
        maps: raw feature maps read so far, each (I, C, H, W).
        by_stage: for side networks, by stage the maps after its entrance and each block; None: not kept.
        extras: extra inputs of the blocks that the stem made (a rotary table); they depend on the grid alone.
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
        """The state of some of the pictures; None: all."""
        return self if rows is None else self._each(lambda x: pick(x, rows))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TrunkState:
        """The same state on another device."""
        extras = {n: None if x is None else x.to(device, non_blocking=non_blocking) for n, x in self.extras.items()}
        return replace(self._each(lambda x: x.to(device, non_blocking=non_blocking)), extras=extras)

    @classmethod
    def stack(cls, states: Sequence[TrunkState]) -> TrunkState:
        """Concatenate several states, all of one picture size and unit."""
        one = states[0]
        assert all((s.unit, s.size, s.grid) == (one.unit, one.size, one.grid) for s in states)
        others = [dict(s.named()) for s in states]
        joined: dict[int, Tensor] = {}
        for name, x in one.named():
            if id(x) not in joined:  # a tensor that appears twice is concatenated once
                joined[id(x)] = _cat([other[name] for other in others])
        return one._each(lambda x: joined[id(x)])

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of everything that differs by picture."""
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
        """Build a state from the pairs of :meth:`named` and the facts that all pictures share."""
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
    """``torch.cat`` that keeps the memory format of maps (channels last, if the trunk's are)."""
    if parts[0].ndim == 4 and parts[0].stride(1) == 1:
        return torch.cat([x.permute(0, 2, 3, 1) for x in parts]).permute(0, 3, 1, 2)
    return torch.cat(list(parts))


def first_changer(owners: Iterable[Owner]) -> Owner | None:
    """The owner (parts count as owners) that changes the earliest unit; None if none changes any."""
    return min(
        (owner for owner in owners if owner.changes is not None),
        key=lambda owner: (owner.changes, owner.number),
        default=None,
    )


def check_start(
    trunk: Trunk,
    images: Tensor,
    start: TrunkState,
    present: Sequence[Owner],
    *,
    training: bool,
    compiled: bool,
) -> None:
    """Raise :class:`OptionError` if a pass of these owners cannot resume from a kept state of these pictures."""
    size = (images.shape[-2], images.shape[-1])
    if compiled:
        raise OptionError("start: a compiled trunk always starts at its stem; use the model uncompiled")
    if trunk.drop_path and training:
        raise OptionError(f"start: drop_path {trunk.drop_path} acts on the whole trunk in training; leave start out")
    if len(start) != images.shape[0] or start.size != size:
        kept = f"{len(start)} pictures of {start.size[0]}x{start.size[1]}"
        raise OptionError(f"start: kept for {kept}, not for {images.shape[0]} of {size[0]}x{size[1]}; keep it again")
    owners = {*present, *(owner.root for owner in present)}
    first = first_changer(owners)
    if first is not None and first.changes is not None and first.changes < start.unit:
        at = trunk.units[first.changes].name
        raise OptionError(f"start: {first.made_by} changes {at}, which lies before it")
    if start.by_stage is None and any(owner.side is not None for owner in owners):
        raise OptionError("start: lacks the maps that a side network reads; keep it with beside=True")


def run_prefix(
    trunk: Trunk,
    images: Tensor,
    size: tuple[int, int],
    unit: int,
    *,
    beside: bool = False,
    owner: Owner | None = None,
) -> TrunkState:
    """Run the bare trunk, without anyone's adapters, up to a unit.

    Args:
        trunk: with adapters or without.
        images: (I, 3, H, W) float32, normalised; sides a multiple of ``trunk.multiple``.
        size: (H, W) of the pictures without padding.
        unit: number of the unit to stop before, not in the middle of a block, above 0; the number of units: run all.
        beside: keep the maps that side networks read; needs all units.
        owner: whose filters of other bands act; None: nobody's.
    """
    states: list[list[Tensor]] = [[] for _ in trunk.stages]
    watch: Watch | None = (lambda x, index: states[index].append(x)) if beside else None
    ctx = ForwardContext(grid=(0, 0), num_prefix=trunk.num_prefix, owner=owner)
    flow = run_units(trunk, Flow(images, ctx), None, end=unit, watch=watch)
    over = unit == len(trunk.units)
    return TrunkState(
        unit=unit,
        size=size,
        grid=flow.ctx.grid,
        x=None if over else flow.x,
        maps=tuple(x for x in flow.maps if isinstance(x, Tensor)),  # all of them: no streams run here
        by_stage=tuple(map(tuple, states)) if beside else None,
        extras={} if over else dict(flow.extras),
    )


def run_from(
    trunk: Trunk, state: TrunkState, ctx: ForwardContext, rows: Rows | None, *, unread: bool = False
) -> tuple[Tensor | TaskMaps, ...]:
    """Feature maps, finest first, of a pass that resumes from a kept state; arguments as for :func:`run_pass`."""
    at = None if rows is None else fork_of(rows.present)
    body = trunk.body if ctx.owner is None else ctx.owner.body(trunk.body)
    reading = body.reading()
    maps: list[Tensor | TaskMaps] = []
    for index, x in enumerate(state.maps):
        own = replace(ctx, grid=(x.shape[2], x.shape[3]))
        if rows is not None and at is not None and reading[index] >= at:
            x, own = x.index_select(0, rows.images), replace(own, rows=rows)
        maps.append(tapped(trunk, body.taps[index], x, own, unread))
    if state.x is None:
        return tuple(maps)
    x, ctx = state.x, replace(ctx, grid=state.grid)
    if rows is not None and at is not None and at < state.unit:
        # the rows forked before the kept state, but differ in earlier maps only, not in the stream
        x, ctx = x.index_select(0, rows.images), replace(ctx, rows=rows)
    return run_units(trunk, Flow(x, ctx, state.extras, tuple(maps)), rows, first=state.unit, unread=unread).maps
