"""Check: labels that lie some pixels beside their picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, final

from garnish.doctor.borders import bordered
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.fit_verdicts import moved
from garnish.doctor.fits import Contrasts, Fit, fit_to_picture, movement
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_about
from garnish.tasks.task import Task

_REMEDY = "move the labels, or export them anew; what cropped, padded or resized only one of the two files does this"


@final
class Shift(Check):
    """Compares where a label's borders fit the changes of its picture with where the set's labels fit."""

    name: ClassVar[str] = "shift"
    finds: ClassVar[str] = "labels that lie 3 to 7 pixels beside their picture, single ones or all of a task"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task whose labels have borders."""
        return bordered(tasks)

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Fit | None:
        """How well the label's borders lie on the picture's changes, by displacement."""
        return fit_to_picture(seen, tasks[0])

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding about the task, and one about single labels."""
        contrasts, (task,) = Contrasts([one.kept for one in seen]), tasks
        if contrasts.tells and max(map(abs, contrasts.usual)) >= 2:
            step = seen[0].kept.step
            yield fault_about(
                cls,
                seen,
                f"{task}: all {len(seen)} labels together fit their pictures best when they are moved"
                f" {movement(contrasts.usual, step)}",
                _REMEDY,
                tasks=tasks,
                level=contrasts.level,
            )
        if found := moved(contrasts):
            first = seen[found[0].place]
            yield fault_about(
                cls,
                [seen[one.place] for one in found],
                f"{first.labels[task]}: fits its picture better when it is moved"
                f" {movement(found[0].moved, first.kept.step)} from where other labels of {task} fit ({len(found)} of"
                f" {len(seen)} labels are such)",
                _REMEDY,
                tasks=tasks,
                level=contrasts.level,
            )
