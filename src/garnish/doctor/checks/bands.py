"""Check "bands": bands of pictures without data, of one number, or far outside their range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, final

from garnish.data.band_report import band_facts, odd_bands, of_headers
from garnish.data.measured_bands import count_image
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.pictures.band_counts import add_band_counts
from garnish.tasks.task import Task


@final
class OddBands(Check):
    """What ``garnish check --data`` tells of bands that ``channels`` name; nothing of 8-bit RGB."""

    name: ClassVar[str] = "bands"
    finds: ClassVar[str] = (
        "bands (`channels`) without data, of a single number or far outside their range; what headers say and nobody"
        " heeds"
    )
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures alone."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Counts of the bands, the bands, what the headers of the split say: with its first picture alone)."""
        if seen.dataset.bands.is_rgb:
            return None
        headers = list(of_headers(seen.dataset)) if seen.index == 0 else []
        return count_image(seen.image), seen.dataset.bands, [line for _, line in headers]

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault a band and a header."""
        bands = seen[0].kept[1]
        lines = list(odd_bands(band_facts(reduce(add_band_counts, (one.kept[0] for one in seen)), bands), False))
        for line in dict.fromkeys([*lines, *(line for one in seen for line in one.kept[2])]):
            what, _, remedy = line.rpartition("; ")
            yield Fault(check=cls.name, level=cls.level, message=what or line, remedy=remedy)
