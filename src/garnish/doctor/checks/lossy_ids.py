"""Check "lossy_ids": ids or colours that were compressed as a photograph before they became a file without loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.label_codes import BUMPS, border_facts, connected_regions, numbered_codes
from garnish.doctor.looked import Looked
from garnish.doctor.mending import snapped_file
from garnish.doctor.telling import fault_of
from garnish.targets.class_ids import ClassIds
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task

#: Pixels of a region that noise makes, and how many of those must lie side by side: a JPEG of ids is noisy in whole
#: blocks along borders, where specks of a brush lie alone.
_TINY, _DENSE = 3, 0.3
#: Least share of a picture's pixels that is noise, and least number of them.
_SHARE, _LEAST = 0.001, 24


@final
class LossyIds(Check):
    """Noise of single pixels, side by side, in ids or colours.

    Compression of photographs (JPEG, lossy WebP) changes numbers by a few steps in the blocks along borders. What is
    measured is the share of pixels in regions of at most three pixels, and how many of these have another such pixel
    beside them; resized labels, whose numbers rise and fall in stairs along borders, are left to another check.
    """

    name: ClassVar[str] = "lossy_ids"
    finds: ClassVar[str] = (
        "ids or colours that were saved as JPEG once: noise of single pixels along the borders, although the file is a"
        " PNG now"
    )
    level: ClassVar[Level] = "hint"
    fixes: ClassVar[Mapping[str, str]] = {
        "nearest": "ids and colours become the nearest one that is listed, where that is clear by far"
    }

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of ids or of yes and no."""
        return [(name,) for name, task in tasks.items() if task.target in (ClassIds, YesOrNo)]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Share of noisy pixels, how many values the file holds); None: not a file of exact numbers."""
        facts, packed = border_facts(seen, tasks[0]), numbered_codes(seen, tasks[0])
        if facts is None or packed is None:
            return None
        if facts.bumps + facts.between < _LEAST or facts.bumps < BUMPS * facts.between:
            return 0.0, 0
        regions = connected_regions(packed)
        tiny = regions.sizes <= _TINY
        noisy = int(regions.sizes[tiny].sum())
        if noisy < max(_LEAST, _SHARE * packed.size):
            return 0.0, 0
        there = regions.sizes_by_pixel() <= _TINY
        beside = int((there[:, 1:] & there[:, :-1] & (packed[:, 1:] != packed[:, :-1])).sum())
        beside += int((there[1:] & there[:-1] & (packed[1:] != packed[:-1])).sum())
        return (noisy / packed.size, len(np.unique(packed))) if beside > _DENSE * noisy else (0.0, 0)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all files with noise."""
        found = [(one.kept[0], one) for one in seen if one.kept[0] > 0]
        if found:
            share, values = max(one.kept for _, one in found)
            yield fault_of(
                cls,
                found,
                f"{share:.2%} of the pixels are noise of single pixels, {values} values in all, as JPEG leaves it",
                "export the labels again as PNG, without a step that saves JPEG",
                of=len(seen),
                tasks=tasks,
                fix="nearest",
            )

    @classmethod
    def fixed(cls, fix: str, file: Path, seen: Looked, tasks: tuple[str, ...]) -> bytes:
        """Each number or colour becomes the nearest one that the description lists."""
        return snapped_file(file, seen, tasks[0])
