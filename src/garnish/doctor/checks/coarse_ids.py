"""Check "coarse_ids": labels that were enlarged from far fewer pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.label_codes import is_exact, numbered_codes
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.targets.class_ids import ClassIds
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task

#: Rows and columns with borders that are needed to tell, and the least step between them that counts as coarse.
_LEAST, _COARSE = 8, 3


@final
class CoarseIds(Check):
    """Borders that lie in every third row and column only, or in fewer: nearest neighbour from a smaller map."""

    name: ClassVar[str] = "coarse_ids"
    finds: ClassVar[str] = "labels whose borders are stairs of 3 or more pixels: enlarged from a map a third as large"
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of ids or of yes and no."""
        return [(name,) for name, task in tasks.items() if task.target in (ClassIds, YesOrNo)]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Pixels of a stair, 0 if there are none; None: not a file of exact numbers."""
        if not is_exact(seen, tasks[0]) or (packed := numbered_codes(seen, tasks[0])) is None:
            return None
        columns = np.flatnonzero((packed[:, 1:] != packed[:, :-1]).any(0))
        rows = np.flatnonzero((packed[1:] != packed[:-1]).any(1))
        if min(len(columns), len(rows)) < _LEAST:
            return 0
        step = min(int(np.diff(columns).min()), int(np.diff(rows).min()))
        return step if step >= _COARSE else 0

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all such files."""
        found = [(float(one.kept), one) for one in seen if one.kept]
        if found:
            step = max(one.kept for _, one in found)
            yield fault_of(
                cls,
                found,
                f"its borders are stairs of {step} pixels, as of a map that was {step} times smaller",
                "train on the labels of full size if there are any; scores of borders mean little with these",
                of=len(seen),
                tasks=tasks,
            )
