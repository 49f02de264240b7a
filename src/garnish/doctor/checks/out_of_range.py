"""Check "out_of_range": values beyond what their task counts, such as depth beyond ``max_metres``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

from garnish.data.labels.uncounted import add_up, lines_about
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.tasks.task import Task

#: Share of a set's measured pixels above which the range is likely wrong.
_MUCH = 0.01


@final
class OutOfRange(Check):
    """Measured values outside a task's range, which are no labels; by the reason that the task gives."""

    name: ClassVar[str] = "out_of_range"
    finds: ClassVar[str] = "depths beyond `max_metres` or below `min_metres`, which have no label, with their share"
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of quantities."""
        return [(name,) for name, task in tasks.items() if not task.target.categorical]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Reason → what lies outside, labelled pixels); None: no valid label."""
        counts = seen.counts(tasks[0])
        return None if counts is None else (counts.outside, counts.labelled)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for each reason."""
        labelled = sum(one.kept[1] for one in seen)
        total = add_up(one.kept[0] for one in seen)
        measured = labelled + sum(one.pixels for one in total.values())
        for why, line in zip(total, lines_about(total, labelled), strict=True):
            those = [
                (one.kept[0][why].pixels / max(one.kept[1] + one.kept[0][why].pixels, 1), one)
                for one in seen
                if why in one.kept[0]
            ]
            what, _, remedy = line.partition("; ")
            yield fault_of(
                cls,
                those,
                f"{max(share for share, _ in those):.1%} of its measured pixels are {why}; of all labels {what}",
                remedy,
                of=len(seen),
                tasks=tasks,
                level="warning" if total[why].pixels > _MUCH * measured else None,
            )
