"""Check: two labels of a picture of which one is mirrored against the other, or upside down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, final

from garnish.doctor.borders import pairs
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.fit_verdicts import turned
from garnish.doctor.fits import Contrasts, Fit, fit_to_label
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_about
from garnish.tasks.task import Task


@final
class LabelMirrored(Check):
    """Compares the borders of two labels as they are and turned around, where most of the set's share borders."""

    name: ClassVar[str] = "label_mirrored"
    finds: ClassVar[str] = "two labels of a picture of which one fits the other mirrored or turned, and not as it is"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Every two tasks whose labels have borders."""
        return pairs(tasks)

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Fit | None:
        """How well the borders of one label lie on those of the other, also turned around."""
        return fit_to_label(seen, *tasks)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding about single pictures, which may be all of them."""
        one, other = tasks
        contrasts = Contrasts([picture.kept for picture in seen])
        if found := turned(contrasts):
            first = seen[found[0].place]
            yield fault_about(
                cls,
                [seen[verdict.place] for verdict in found],
                f"{first.labels[one]}: fits {first.labels[other]} {found[0].how} better than as it is"
                f" ({len(found)} of {len(seen)} pictures are such)",
                "find out which of the two fits the picture, and turn or export the other anew",
                tasks=tasks,
                level=contrasts.level,
            )
