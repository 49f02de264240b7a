"""Check: two labels of a picture of which one lies some pixels beside the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, final

from garnish.doctor.borders import pairs
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.fit_verdicts import moved
from garnish.doctor.fits import Contrasts, Fit, fit_to_label, movement
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_about
from garnish.tasks.task import Task

_REMEDY = "find out which of the two fits the picture, and move or export the other anew"


@final
class LabelShift(Check):
    """Compares the borders of two labels, such as classes and depth, where most of the set's share borders."""

    name: ClassVar[str] = "label_shift"
    finds: ClassVar[str] = "two labels of a picture that lie 3 to 7 pixels apart, of single pictures or of all"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Every two tasks whose labels have borders."""
        return pairs(tasks)

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Fit | None:
        """How well the borders of one label lie on those of the other, by displacement."""
        return fit_to_label(seen, *tasks)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding about the two tasks, and one about single pictures."""
        contrasts, (one, other) = Contrasts([picture.kept for picture in seen]), tasks
        if contrasts.tells and max(map(abs, contrasts.usual)) >= 2:
            yield fault_about(
                cls,
                seen,
                f"{one} and {other}: all {len(seen)} pairs of labels together fit best when {one} is moved"
                f" {movement(contrasts.usual, seen[0].kept.step)}",
                _REMEDY,
                tasks=tasks,
                level=contrasts.level,
            )
        if found := moved(contrasts):
            first = seen[found[0].place]
            yield fault_about(
                cls,
                [seen[verdict.place] for verdict in found],
                f"{first.labels[one]}: fits {first.labels[other]} better when it is moved"
                f" {movement(found[0].moved, first.kept.step)} ({len(found)} of {len(seen)} pictures are such)",
                _REMEDY,
                tasks=tasks,
                level=contrasts.level,
            )
