"""One pass of the trunk: for one owner, for several whose rows fork, with task streams, or with side networks.

Shape letters: I images, R rows, C channels, H W grid.
"""

from __future__ import annotations

from contextlib import nullcontext
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
        trunk: with adapters or without.
        images: (I, 3 or more, H, W) float32, normalised; sides a multiple of ``trunk.multiple``.
        present: owners whose adapters act, which must be able to share a pass; one if ``rows`` is None; None: nobody.
        rows: the rows after the fork; None: no fork.
        unread: return maps that only tasks' own adapters change as :class:`TaskMaps`, to be made later.
        start: state of the bare trunk for these images, at or before the first unit that an owner of this pass
            changes; the pass resumes there, and of ``images`` only the number is used.

    Returns:
        Raw feature maps, finest first, each (I, C_i, H_i, W_i), or (R, C_i, H_i, W_i) from :func:`first_forked` on.
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
    """Index of the first feature map after the fork of a forked pass; the number of maps if there is none."""
    reading = trunk.body.reading()
    if present[0].streamed or present[0].side is not None:
        return 0
    fork = fork_of(present)
    return len(reading) if fork is None else next(index for index, unit in enumerate(reading) if unit >= fork)


def _run_beside(trunk: Trunk, images: Tensor, rows: Rows, start: TrunkState | None) -> tuple[Tensor, ...]:
    """Run the side networks of one or several owners on one frozen pass, without gradients through the trunk.

    Only where an owner has filters for other bands, which lie before all of it, gradients run through the trunk.
    """
    if start is None:
        acting = rows.present[0] if rows.present[0].others is not None else None  # its filters learn through the trunk
        with nullcontext() if acting is not None else torch.no_grad():
            start = run_prefix(trunk, images, (0, 0), len(trunk.units), beside=True, owner=acting)
    states, maps = start.by_stage, list(start.maps)
    assert states is not None, "the kept state lacks the maps that side networks read"
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
