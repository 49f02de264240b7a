"""Which blocks of the trunk keep less in a training step, so that it stays below a bound at the least loss of time.

The candidates form a ladder: all blocks at ``fast``; then one after the other at ``lean``, which takes hardly any
time, those that save most first; then one after the other at ``least``, those first that save most per
multiply-accumulate that runs again, of equal ones the earliest, since the last ones run again while all before them is
still kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import final

from garnish.engine.memory import LEVELS, Level
from garnish.errors import plural
from garnish.training.simulated_step import Levels, SimulatedStep


@final
@dataclass(frozen=True)
class MemoryPlan:
    """The levels for a batch, and what a step then takes.

    Attributes:
        levels: one per block.
        peak_bytes: most bytes alive in a step, above the loaded model.
        fits: it is not above the bound.
    """

    levels: Levels
    peak_bytes: int
    fits: bool


def plan_levels(simulated: SimulatedStep, count: int, bound: int) -> MemoryPlan:
    """The first rung of the ladder whose step of ``count`` pictures takes at most ``bound`` bytes.

    If none does, ``fits`` is False, and the rung that takes least is returned, of those that were tried.
    """
    tried: dict[Levels, int] = {}

    def fits(levels: Levels) -> bool:
        tried[levels] = simulated.peak(levels, count)
        return tried[levels] <= bound

    fast, lean = uniform("fast", simulated.num_blocks), uniform("lean", simulated.num_blocks)
    if fits(fast):
        return MemoryPlan(fast, tried[fast], True)
    kept, macs = simulated.counts("lean", count)
    if fits(lean):
        saved = _less(simulated.counts("fast", count)[0], kept)
        rungs = _lowered(fast, "lean", sorted(range(len(saved)), key=lambda block: -saved[block]))
    else:
        saved = _less(kept, simulated.counts("least", count)[0])
        gain = {block: bytes_ / max(macs[block], 1) for block, bytes_ in enumerate(saved) if bytes_ > 0}
        rungs = _lowered(lean, "least", sorted(gain, key=lambda block: -gain[block]))
    if rungs and fits(rungs[-1]):
        found = rungs[bisect_left(rungs, True, key=fits)]
    else:
        found = min(tried, key=lambda levels: tried[levels])
    return MemoryPlan(found, tried[found], tried[found] <= bound)


def uniform(level: Level, num_blocks: int) -> Levels:
    """One level for all blocks."""
    return (level,) * num_blocks


def _less(before: list[int], after: list[int]) -> list[int]:
    return [one - other for one, other in zip(before, after, strict=True)]


def _lowered(start: Levels, level: Level, order: list[int]) -> list[Levels]:
    """Levels with one block more at ``level`` from rung to rung; sorting keeps equal blocks in forward order."""
    rungs, now = [], list(start)
    for block in order:
        now[block] = level
        rungs.append(tuple(now))
    return rungs


def in_words(levels: Levels) -> str:
    """Text such as ``9 blocks lean, 3 least``."""
    found = Counter(levels)
    named = [f"{found[level]} {level}" for level in LEVELS if found[level]]
    number, level = named[0].split()
    return ", ".join([f"{plural(int(number), 'block')} {level}", *named[1:]])


def size_in_words(count: int) -> str:
    """Bytes as text: ``1.43 GB``, ``24.2 MB``."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
