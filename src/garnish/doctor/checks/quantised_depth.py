"""Check "quantised_depth": depth of 16 bits or floats that has the levels of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.depth_planes import measured_depth, stored_depth
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.targets.distances import Distances
from garnish.tasks.task import Task

#: Pixels that are needed to tell, levels of 8 bits, least step in numbers of a file and as a share of its median.
_PIXELS, _LEVELS, _STEP, _SHARE = 2048, 256, 3, 0.002
#: Most numbers that are counted one by one; of more, and of floats, a part of the pixels is sorted.
_COUNTED, _SORTED = 1 << 20, 1 << 15


@final
class QuantisedDepth(Check):
    """At most 256 different numbers with wide, even steps between them, where a file could hold far more."""

    name: ClassVar[str] = "quantised_depth"
    finds: ClassVar[str] = "depth files of 16 bits or floats with at most 256 levels: depth that was 8-bit once"
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of distances."""
        return [(name,) for name, task in tasks.items() if task.target is Distances]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Levels, metres of a step), levels 0 if there are many; None: no file of more than 8 bits."""
        found, values = stored_depth(seen, tasks[0]), measured_depth(seen, tasks[0])
        if found is None or values is None or found[0].dtype.itemsize < 2 or len(values) < _PIXELS:
            return None
        _, reader = found
        if values.dtype.kind in "ui" and values.max() < _COUNTED:
            levels = np.unique(values[:: len(values) // _PIXELS])
            if len(levels) <= _LEVELS:  # else a few of the pixels have too many already
                levels = np.flatnonzero(np.bincount(values))
        else:
            levels = np.unique(values[:: max(1, len(values) // _SORTED)])
        if not 1 < len(levels) <= _LEVELS:
            return 0, 0.0
        steps = np.diff(levels.astype(np.float64))
        least = _SHARE * float(np.median(values))
        least = max(least, _STEP) if values.dtype.kind in "ui" else least
        # a tenth of the steps may be short, where rounding or a sentinel made them so
        wide = float(np.quantile(steps, 0.1)) >= least
        return (len(levels), float(np.median(steps)) * (reader.metres or 1.0)) if wide else (0, 0.0)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all such labels."""
        found = [(1 / one.kept[0], one) for one in seen if one.kept[0]]
        if found:
            levels, step = min(one.kept for _, one in found)
            yield fault_of(
                cls,
                found,
                f"holds {levels} different depths, {step:.3g} m apart, though its file has more than 8 bits",
                "look for the depth before it was saved with 8 bits; steps that wide are learnt as stairs",
                of=len(seen),
                tasks=tasks,
            )
