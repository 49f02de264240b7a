"""Check "transparent": pictures with transparent pixels, whose hidden colour training would see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.files.pictures import is_transparent
from garnish.tasks.task import Task


@final
class Transparent(Check):
    """Pictures of which some pixel is not opaque."""

    name: ClassVar[str] = "transparent"
    finds: ClassVar[str] = "pictures with transparent pixels, whose hidden colour is used"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures alone."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Whether some pixel is not opaque."""
        return seen.facts is not None and is_transparent(seen.file, seen.facts)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all."""
        if found := [(0.0, one) for one in seen if one.kept]:
            what = "has transparent pixels, whose hidden colour is used"
            remedy = "save such pictures without alpha, on the intended background"
            yield fault_of(cls, found, what, remedy, of=len(seen))
