"""One pass of the trunk: of one owner, of several with a row each, of task streams, or of side networks beside it.

Shape letters: I images, R rows, C channels, H W grid.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from garnish.engine.context import ForwardContext, Rows
from garnish.engine.loop import Flow, fork_of, run_units
from garnish.engine.maps import TaskMaps
from garnish.engine.owner import Owner
from garnish.engine.trunk import Trunk
from garnish.engine.trunk_start import TrunkState, run_from, run_prefix


def run_pass(
    trunk: Trunk,
    images: Tensor,
    present: tuple[Owner | None, ...],
    rows: Rows | None,
    *,
    unread: bool = False,
    start: TrunkState | None = None,
) -> tuple[Tensor | TaskMaps, ...]:
    """Run the trunk once.

    Args:
        trunk: adapted or not.
        images: (I, 3, H, W) float32, normalised; sides a multiple of ``trunk.multiple``.
        present: owners that act in this pass, which can share one; exactly one where nothing forks, None for nobody.
        rows: the rows after the fork; None: nothing forks.
        unread: maps that tasks' own adapters change alone are handed out as :class:`TaskMaps`, to be read later.
        start: what the bare trunk made of the images before the first unit that an owner of this pass changes; the
            pass goes on from there, and of ``images`` only their number is looked at.

    Returns:
        Raw feature maps, finest first, each (I or R, C_i, H_i, W_i): rows from :func:`first_forked` on.
    """
    first = present[0]
    alone = Rows.whole(images.shape[0], present, images.device) if rows is None else rows
    if first is not None and first.side is not None:
        return _run_beside(trunk, images, alone, start)
    ctx = ForwardContext(grid=(0, 0), num_prefix=trunk.num_prefix, owner=first)
    if first is not None and first.streamed:
        rows, ctx = None, replace(ctx, owner=first.parent, streams=alone, num_images=images.shape[0])
    if start is not None:
        return run_from(trunk, start, ctx, rows, unread=unread)
    return run_units(trunk, Flow(images, ctx), rows, unread=unread).maps


def first_forked(trunk: Trunk, present: tuple[Owner, ...]) -> int:
    """Index of the first feature map that has a row per owner in a forked pass; the number of maps if none has."""
    reading = trunk.body.reading()
    if present[0].streamed or present[0].side is not None:
        return 0
    fork = fork_of(present)
    return len(reading) if fork is None else next(index for index, unit in enumerate(reading) if unit >= fork)


def _run_beside(trunk: Trunk, images: Tensor, rows: Rows, start: TrunkState | None) -> tuple[Tensor, ...]:
    """Side networks of one or several owners on one frozen pass, without gradients through the trunk."""
    if start is None:
        with torch.no_grad():
            start = run_prefix(trunk, images, (0, 0), len(trunk.units), beside=True)
    states, maps = start.by_stage, list(start.maps)
    assert states is not None, "side networks read what a state without their maps does not hold"
    done = []
    for position, owner in enumerate(rows.present):
        if rows.counts is None:
            done.append(owner.side(states, maps))
        elif rows.counts[position]:
            own = rows.split(rows.images)[position]
            whole = own.shape[0] == images.shape[0]
            taken = [[x if whole else x.index_select(0, own) for x in stage] for stage in states]
            done.append(owner.side(taken, [m if whole else m.index_select(0, own) for m in maps]))
    joined = [torch.cat(level) if len(level) > 1 else level[0] for level in zip(*done, strict=True)]
    if rows.counts is None:  # compiled: every side network saw every image
        joined = [m.index_select(0, rows.owners * images.shape[0] + rows.images) for m in joined]
    return tuple(joined)
