"""Check "absent_classes": classes that a split does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.tasks.task import Task

_SHOWN = 8


@final
class AbsentClasses(Check):
    """Classes that never occur, in the whole set, in training, or where scores are measured."""

    name: ClassVar[str] = "absent_classes"
    finds: ClassVar[str] = "classes without a pixel in the set or in a split, and classes that only val or test has"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task with classes."""
        return [(name,) for name, task in tasks.items() if task.target.categorical]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Names of the classes, which of them the label has); None: no valid label."""
        counts = seen.counts(tasks[0])
        return None if counts is None or not counts.names else (counts.names, np.flatnonzero(counts.pixels).tolist())

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for the whole set, one for each split."""
        names: tuple[str, ...] = seen[0].kept[0]
        task, target = tasks[0], seen[0].of[tasks[0]].target
        splits = list(dict.fromkeys(one.split for one in seen))
        has = {split: {k for one in seen if one.split == split for k in one.kept[1]} for split in splits}
        everywhere = set().union(*has.values())
        nowhere = [name for k, name in enumerate(names) if k not in everywhere]
        if nowhere and (told := target.lacking(nowhere, len(seen))):
            what, _, remedy = told.partition("; ")
            yield _fault(cls, task, None, f"{task}: {what}", remedy)
        for split in splits:
            lacking = [name for k, name in enumerate(names) if k in everywhere - has[split]]
            labels = sum(one.split == split for one in seen)
            if not lacking or target.lacking(lacking, labels) is None:
                continue
            others = " and ".join(other for other in splits if other != split)
            shown = ", ".join(lacking[:_SHOWN]) + (f" … ({len(lacking)} in all)" if len(lacking) > _SHOWN else "")
            what = f"{task}: no pixel of {labels} labels in {split} is of {shown}, which {others} has"
            if split == "train":
                remedy = "move pictures of them into train: what is not trained cannot be found"
                yield _fault(cls, task, split, what, remedy)
            else:
                remedy = "move pictures of them there, else no score tells how well they are found"
                yield _fault(cls, task, split, what, remedy, "hint")


def _fault(
    check: type[Check], task: str, split: str | None, what: str, remedy: str, level: Level | None = None
) -> Fault:
    return Fault(check=check.name, level=level or check.level, message=what, remedy=remedy, split=split, tasks=(task,))
