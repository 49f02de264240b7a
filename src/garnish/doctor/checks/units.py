"""Check "units": depth files in another unit, or of another scale, than the rest of the set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
from torch import Tensor

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.quantities import labelled_grid
from garnish.doctor.robust import centre_and_spread
from garnish.doctor.telling import fault_of
from garnish.targets.distances import Distances
from garnish.tasks.task import Task

#: Labels that are needed to know what is usual; least factor from the usual, and standard deviations.
_LABELS, _FACTOR, _FAR = 8, 2.5, 4.5
_AT = (0.1, 0.5, 0.9)


@final
class Units(Check):
    """Labels whose 10 %, 50 % and 90 % quantiles all lie a factor away from those of the others.

    Compared are logarithms with the median of the set and the spread around it, so that in a set of rooms and
    landscapes a factor of ten is nothing odd.
    """

    name: ClassVar[str] = "units"
    finds: ClassVar[str] = "depth files in another unit or scale than the others: 10, 25.4 or 1000 times as large"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of distances."""
        return [(name,) for name, task in tasks.items() if task.target is Distances]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Logarithms (base 10) of three quantiles in metres, also beyond the task's range; None: no depth."""
        target = seen.decoded(tasks[0])
        if target is None:
            return None
        values = labelled_grid(target, _measured)
        return tuple(np.log10(np.quantile(values, _AT)).tolist()) if values.shape[1] else None

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for labels of about one factor."""
        if len(seen) < _LABELS:
            return
        logs = np.array([one.kept for one in seen])
        usual = [centre_and_spread(column, least=0.05) for column in logs.T]
        spread = float(np.median([width for _, width in usual]))
        away = np.median(logs - [centre for centre, _ in usual], axis=1)
        far = np.flatnonzero(np.abs(away) > max(np.log10(_FACTOR), _FAR * spread)).tolist()
        groups: dict[int, list[tuple[float, Seen]]] = {}
        for k in far:
            groups.setdefault(round(2 * float(away[k])), []).append((float(abs(away[k])), seen[k]))
        for half_decades, found in groups.items():
            middle = float(np.median([amount for amount, _ in found]))
            ratio = f"{10**middle:.3g} times {'larger' if half_decades > 0 else 'smaller'} than those of the others"
            median = 10 ** float(np.median(logs[:, 1]))
            yield fault_of(
                cls,
                found,
                f"its depths are about {ratio}, whose median is {median:.3g} m",
                "save it in the unit of the others, or take it out of the set",
                of=len(seen),
                tasks=tasks,
            )


def _measured(depth: Tensor) -> Tensor:
    return (depth > 0) & depth.isfinite()
