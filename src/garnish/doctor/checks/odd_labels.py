"""Check "odd_labels": what a task itself finds odd of a label: one value everywhere, values stretched to white."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.targets.unit_vectors import UnitVectors
from garnish.tasks.task import Task

#: Share of the labels above which a single class is the nature of the set and no mistake.
_USUAL = 0.2


@final
class OddLabels(Check):
    """Constant labels, and what else :meth:`garnish.tasks.task.Task.oddity` tells of one label."""

    name: ClassVar[str] = "odd_labels"
    finds: ClassVar[str] = (
        "constant labels (one class, one depth, one direction), masks that are foreground everywhere, depth that was"
        " stretched to white or clipped at `max_metres`"
    )
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task."""
        return [(name,) for name in tasks]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """What is odd, in words that follow "labels", empty if nothing is; None: no valid label that counts."""
        target, counts = seen.target(tasks[0]), seen.counts(tasks[0])
        if target is None or counts is None or not counts.labelled:
            return None
        task = seen.task(tasks[0])
        told = task.oddity(target) or ""
        # normals of other axes are told by a check of their own, which knows the rest of the set
        return "" if task.target is UnitVectors and "away from the camera" in told else told

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for each thing that is odd."""
        grouped: dict[str, list[tuple[float, Seen]]] = {}
        for one in seen:
            if one.kept:
                grouped.setdefault(one.kept, []).append((0.0, one))
        for told, found in grouped.items():
            what, _, remedy = told.partition("; ")
            # words of tasks follow "labels", in the plural
            yield fault_of(
                cls,
                found,
                f"labels like it {what}",
                remedy or "look at these labels, and take them out where nobody labelled the picture",
                of=len(seen),
                tasks=tasks,
                level="hint" if len(found) > _USUAL * len(seen) and not remedy else None,
            )
