"""Check "exposure": pictures that are all but black or white, or of one tone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.tasks.task import Task

#: Levels (0 to 255) that the brightest twentieth of a dark picture and the darkest of a bright one do not reach; the
#: standard deviation of one of a single tone; share of the set above which that is its nature.
_DARK, _BRIGHT, _FLAT, _USUAL = 32.0, 225.0, 3.0, 0.5


@final
class Exposure(Check):
    """Dark, bright and empty pictures."""

    name: ClassVar[str] = "exposure"
    finds: ClassVar[str] = "pictures that are nearly black, nearly white, or of one tone"
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures alone."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Levels at 5 % and 95 %, and their standard deviation."""
        levels = seen.small.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        low, high = np.quantile(levels, (0.05, 0.95)).tolist()
        return low, high, float(levels.std())

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault each for dark, bright and flat pictures."""
        flat = [(-one.kept[2], one) for one in seen if one.kept[2] < _FLAT]
        rest = [one for one in seen if one.kept[2] >= _FLAT]
        dark = [(-one.kept[1], one) for one in rest if one.kept[1] < _DARK]
        bright = [(one.kept[0], one) for one in rest if one.kept[0] > _BRIGHT]
        for found, what in (
            (flat, f"is of one tone (standard deviation below {_FLAT:g} levels)"),
            (dark, f"is nearly black (95 % of its pixels below level {_DARK:g} of 255)"),
            (bright, f"is nearly white (95 % of its pixels above level {_BRIGHT:g} of 255)"),
        ):
            if found and len(found) <= _USUAL * len(seen):
                yield fault_of(cls, found, what, "look whether there is anything to see on it", of=len(seen))
