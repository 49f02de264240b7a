"""Check: labels that are mirrored against their picture, or upside down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, final

from garnish.doctor.borders import bordered
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.fit_verdicts import turned
from garnish.doctor.fits import Contrasts, Fit, fit_to_picture
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_about
from garnish.tasks.task import Task


@final
class Mirrored(Check):
    """Compares how a label fits its picture as it is and turned around."""

    name: ClassVar[str] = "mirrored"
    finds: ClassVar[str] = "labels that fit their picture mirrored, upside down or turned by 180°, and not as they are"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task whose labels have borders."""
        return bordered(tasks)

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Fit | None:
        """How well the label's borders lie on the picture's changes, also turned around."""
        return fit_to_picture(seen, tasks[0])

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding about single labels, which may be all of them."""
        (task,) = tasks
        contrasts = Contrasts([one.kept for one in seen])
        if found := turned(contrasts):
            first = seen[found[0].place]
            yield fault_about(
                cls,
                [seen[one.place] for one in found],
                f"{first.labels[task]}: fits its picture {found[0].how} better than as it is ({len(found)} of"
                f" {len(seen)} labels of {task} are such)",
                "turn the labels, or export them anew; a picture that was turned by its EXIF orientation or by"
                " augmentation, and its label not, does this",
                tasks=tasks,
                level=contrasts.level,
            )
