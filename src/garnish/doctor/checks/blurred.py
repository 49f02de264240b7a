"""Check "blurred": pictures with far less detail than the others of the set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.robust import centre_and_spread
from garnish.doctor.telling import fault_of
from garnish.tasks.task import Task

#: Pictures that are needed to know what is usual; least factor below it, and standard deviations; rows that are left
#: out between two.
_PICTURES, _FACTOR, _FAR, _ROWS = 8, 6.0, 4.5, 4
#: Variance of grey levels below which a picture shows nothing that could be sharp.
_FLAT = 9.0


@final
class Blurred(Check):
    """Pictures whose second differences are small beside their contrast, against the rest of the set."""

    name: ClassVar[str] = "blurred"
    finds: ClassVar[str] = "pictures with far less detail than the others: out of focus, moved, enlarged"
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures alone."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Logarithm (base 10) of the variance of second differences along rows over that of the levels."""
        grey = seen.grey
        rows = grey[:: _ROWS if grey.shape[0] > 64 else 1]
        variance = float(rows.var())
        if rows.shape[1] < 3 or variance < _FLAT:
            return None
        second = rows[:, 2:] - 2 * rows[:, 1:-1] + rows[:, :-2]
        return float(np.log10((float((second**2).mean()) + 1e-3) / variance))

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all such pictures."""
        if len(seen) < _PICTURES:
            return
        centre, spread = centre_and_spread([one.kept for one in seen], least=0.05)
        least = centre - max(np.log10(_FACTOR), _FAR * spread)
        if found := [(-one.kept, one) for one in seen if one.kept < least]:
            times = 10 ** (centre + max(found, key=lambda x: x[0])[0])
            what = f"has {times:.2g} times less fine detail than the median of the set"
            yield fault_of(cls, found, what, "look whether it is out of focus, moved or enlarged", of=len(seen))
