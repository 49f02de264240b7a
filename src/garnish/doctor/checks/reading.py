"""Check "reading": pictures and labels that training could not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.tasks.task import Task

_REMEDY = "replace the file, or take it out of the set"


@final
class Unreadable(Check):
    """Files that cannot be read, labels of another size than their picture, values that their task does not have."""

    name: ClassVar[str] = "reading"
    finds: ClassVar[str] = (
        "files that cannot be read, labels of another size than their picture, ids beyond the classes, colours that are"
        " not listed, NaN: all that training would stop at"
    )
    level: ClassVar[Level] = "error"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures, with all labels."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Why the picture cannot be read, task → why its label cannot); None if nothing is wrong."""
        problems = seen.problems()
        return (seen.problem, problems) if seen.problem or problems else None

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for each file."""
        for one in seen:
            picture, labels = one.kept
            if picture is not None:
                yield _fault(one, (), str(one.file), picture)
            for task, message in labels.items():
                yield _fault(one, (task,), str(one.labels[task]), message)


def _fault(one: Seen, tasks: tuple[str, ...], file: str, message: str) -> Fault:
    what, _, remedy = message.rpartition("; ")
    return Fault(
        check=Unreadable.name,
        level="error",
        message=what or message,
        remedy=remedy if what else _REMEDY,
        split=one.split,
        tasks=tasks,
        files=(file,),
        names=(one.name,),
    )
