"""Check "interpolated_ids": ids or colours that were resized as a photograph is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.label_codes import BUMPS, between_neighbours, border_facts, lonely, stored_codes
from garnish.doctor.looked import Looked
from garnish.doctor.mending import without_between
from garnish.doctor.telling import fault_of
from garnish.targets.class_ids import ClassIds
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task

#: Of thin pixels those that must lie between their neighbours; share of a border's pixels that they are; least number.
_INNER, _OF_BORDERS, _LEAST = 0.7, 0.08, 16


@final
class InterpolatedIds(Check):
    """In-between ids along the borders of two regions: 3 between a 2 and a 5.

    Of the pixels that differ from both neighbours, in a row or a column, nearly all lie between these in their number
    (or in every channel of their colour); thin things that are really there lie between two others by chance only. A
    sliver of a larger region, as of the wall between a box and the floor, does not count.
    """

    name: ClassVar[str] = "interpolated_ids"
    finds: ClassVar[str] = (
        "ids or colours that were resized with interpolation: thin lines of in-between ids along borders"
    )
    level: ClassVar[Level] = "hint"
    fixes: ClassVar[Mapping[str, str]] = {
        "neighbour": "thin lines of in-between ids become the nearer one of the two regions beside them"
    }

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of ids or of yes and no."""
        return [(name,) for name, task in tasks.items() if task.target in (ClassIds, YesOrNo)]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Share of the borders' pixels that lie between their neighbours; None: not a file of exact numbers."""
        facts = border_facts(seen, tasks[0])
        if facts is None:
            return None
        least = max(_LEAST, _OF_BORDERS * facts.borders)
        if facts.between < max(least, _INNER * facts.thin) or facts.bumps >= BUMPS * facts.between:
            return 0.0
        codes = stored_codes(seen, tasks[0])
        alone = 0 if codes is None else int(lonely(codes, between_neighbours(codes)[1]).sum())
        return alone / facts.borders if alone >= least else 0.0

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all files with such lines."""
        found = [(one.kept, one) for one in seen if one.kept > 0]
        if found:
            yield fault_of(
                cls,
                found,
                f"along {max(share for share, _ in found):.0%} of its borders lie thin lines of in-between ids, as"
                " interpolation makes them",
                "resize labels with nearest neighbour, from the original files",
                of=len(seen),
                tasks=tasks,
                fix="neighbour",
            )

    @classmethod
    def fixed(cls, fix: str, file: Path, seen: Looked, tasks: tuple[str, ...]) -> bytes:
        """In-between pixels take the value of the nearest pixel that is none."""
        return without_between(file)
