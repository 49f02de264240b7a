"""Check "empty_labels": labels without a labelled pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.tasks.task import Task


@final
class EmptyLabels(Check):
    """Labels of which no pixel counts; an error where a split has no other."""

    name: ClassVar[str] = "empty_labels"
    finds: ClassVar[str] = "labels of which no pixel counts: all are 255, listed under `ignore`, or outside the range"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task."""
        return [(name,) for name in tasks]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Labelled pixels; None: no valid label."""
        counts = seen.counts(tasks[0])
        return None if counts is None else counts.labelled

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault a split that has nothing else, one for all other such labels."""
        rest: list[tuple[float, Seen]] = []
        for split in dict.fromkeys(one.split for one in seen):
            whole = [one for one in seen if one.split == split]
            empty = [(0.0, one) for one in whole if not one.kept]
            if len(empty) == len(whole):
                remedy = f"correct `ignore`, `map` or the range (tasks.{tasks[0]}): nothing can be learnt of these"
                what = f"no label of {tasks[0]} in {split} has a labelled pixel"
                yield fault_of(cls, empty, what, remedy, of=len(whole), tasks=tasks, level="error")
            else:
                rest += empty
        if rest:
            what, remedy = "has no labelled pixel", "label the picture, or take it out of the set"
            yield fault_of(cls, rest, what, remedy, of=len(seen), tasks=tasks)
