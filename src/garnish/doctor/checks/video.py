"""Check: frames of one video on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import ClassVar, final

import numpy as np

from garnish.doctor.alike import Likeness, explained, likeness
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.tasks.task import Task

#: A name: what is before its last number, the number, what is after it.
_NAME = re.compile(r"(.*?)(\d{1,18})(\D*)", re.S)
#: Frames before and after a frame that it is compared with, by number.
_NEIGHBOURS = 2
#: Times the usual step from frame to frame that numbers may be apart.
_STEPS = 4
#: Share of a small copy that the neighbouring frame explains; unrelated pictures explain less (docs/check.md).
_ALIKE = 0.7


@final
class Video(Check):
    """Compares pictures of different splits whose names differ in their last number alone, and by little."""

    name: ClassVar[str] = "video"
    finds: ClassVar[str] = "neighbouring frames of one video (by their names, and alike) in two splits"
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures alone."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Likeness | None:
        """The small copy."""
        return likeness(seen)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding for each two splits."""
        videos: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for place, picture in enumerate(seen):
            if match := _NAME.fullmatch(picture.name):
                videos.setdefault((match[1], match[3]), []).append((int(match[2]), place))
        pairs: list[tuple[int, int]] = []
        for frames in videos.values():
            frames.sort()
            steps = np.diff([number for number, _ in frames])
            usual = float(np.median(steps)) if len(steps) else 0.0
            for ahead in range(1, _NEIGHBOURS + 1):
                for (number, one), (next_number, other) in zip(frames, frames[ahead:], strict=False):
                    if seen[one].split != seen[other].split and next_number - number <= _STEPS * max(usual, 1.0):
                        pairs.append((min(one, other), max(one, other)))
        if not pairs:
            return
        first, second = (np.stack([seen[pair[k]].kept.levels for pair in pairs]) for k in (0, 1))
        alike = {pair: share for pair, share in zip(pairs, explained(first, second), strict=True) if share >= _ALIKE}
        splits = list(dict.fromkeys(picture.split for picture in seen))
        for split, other_split in combinations(splits, 2):
            found = [pair for pair in alike if (seen[pair[0]].split, seen[pair[1]].split) == (split, other_split)]
            if found:
                found.sort(key=lambda pair: -alike[pair])
                yield cls._fault(seen, found, split, other_split)

    @classmethod
    def _fault(cls, seen: Sequence[Seen], found: Sequence[tuple[int, int]], split: str, other_split: str) -> Fault:
        one, other = (seen[k] for k in found[0])
        count = f"{len(found)} such pairs" if len(found) > 1 else "one such pair"
        listed = [seen[k] for pair in found for k in reversed(pair)]
        return Fault(
            check=cls.name,
            level=cls.level,
            message=f"{one.file}: by its name and what it shows a frame beside {other.file} of split {other_split!r}"
            f" ({count} in {split} and {other_split})",
            remedy="split by video, not by frame (`hold_out` keeps frames of one name together); scores on frames"
            " beside those that were trained on are too good",
            files=tuple(str(picture.file) for picture in listed),
            names=tuple(picture.name for picture in listed),
        )
