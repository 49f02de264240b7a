"""Check: labels of a picture whose borders have nothing to do with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, final

from garnish.doctor.borders import pairs
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.fit_verdicts import strange
from garnish.doctor.fits import Contrasts, Fit, fit_to_label
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_about
from garnish.tasks.task import Task


@final
class Contradiction(Check):
    """Depth steps, creases of normals, borders of classes and edges lie on each other in most pictures of a set.

    Pairs of tasks whose labels share no borders in the set as a whole are passed over.
    """

    name: ClassVar[str] = "contradiction"
    finds: ClassVar[str] = (
        "two labels of a picture (classes, edges, depth, normals) that share no borders, though the set's labels do"
    )
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Every two tasks whose labels have borders."""
        return pairs(tasks)

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Fit | None:
        """How well the borders of one label lie on those of the other."""
        return fit_to_label(seen, *tasks)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding about single pictures."""
        one, other = tasks
        contrasts = Contrasts([picture.kept for picture in seen])
        if found := strange(contrasts):
            first = seen[found[0].place]
            yield fault_about(
                cls,
                [seen[verdict.place] for verdict in found],
                f"{first.labels[one]}: its borders do not lie on those of {first.labels[other]}, as they do in"
                f" the set ({len(found)} of {len(seen)} pictures are such)",
                "look whether one of the two is another picture's, or of another version of this one",
                tasks=tasks,
            )
