"""Check: pictures that are copies of others, or nearly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import ClassVar, final

import numpy as np

from garnish.doctor.alike import NEAR, Likeness, explained, likeness, nearest_by_hash
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.tasks.task import Task

#: Share of the variance of a small copy that its near-copy explains; another street scene explains 0.84.
_COPY = 0.87
#: Or what is left, in grey levels (standard deviation), and the least share then: asphalt differs from itself in a JPEG
#: by as much as it varies.
_LEFT, _SOME = 4.0, 0.7


@final
class Duplicates(Check):
    """Finds, for each picture, the one of each split whose perceptual hash is nearest, and compares small copies."""

    name: ClassVar[str] = "duplicates"
    finds: ClassVar[str] = (
        "pictures that are nearly the same, recompressed, resized, cropped by a little or the next frame, in one split"
        " (a hint) or in two"
    )
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures alone."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Likeness | None:
        """Hash and small copy."""
        return likeness(seen)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding for each two splits, and one for each split."""
        bits = np.stack([one.kept.bits for one in seen])
        levels = np.stack([one.kept.levels for one in seen])
        groups: dict[str, slice] = {}
        for split, members in groupby(range(len(seen)), lambda k: seen[k].split):
            held = list(members)
            groups[split] = slice(held[0], held[-1] + 1)
        rows = np.arange(len(seen))
        pairs: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
        for other, differ in nearest_by_hash(bits, list(groups.values())):
            near = rows[differ <= NEAR]
            shares = explained(levels[near], levels[other[near]])
            left = (1 - shares) * levels[near].var((1, 2))
            copies = (shares >= _COPY) | ((left <= _LEFT**2) & (shares >= _SOME))
            for one, partner, share, is_copy in zip(near, other[near], shares, copies, strict=True):
                if is_copy:
                    first, second = sorted((int(one), int(partner)))
                    pairs.setdefault((seen[first].split, seen[second].split), {})[first, second] = float(share)
        for (first_split, second_split), found in sorted(pairs.items(), key=lambda entry: entry[0][0] == entry[0][1]):
            yield cls._fault(seen, found, first_split, second_split)

    @classmethod
    def _fault(
        cls, seen: Sequence[Seen], found: Mapping[tuple[int, int], float], split: str, other_split: str
    ) -> Fault:
        ordered = sorted(found, key=lambda pair: -found[pair])
        one, other = (seen[k] for k in ordered[0])
        across = split != other_split
        told = f"of split {other_split!r}" if across else "of the same split"
        count = f"{len(found)} such pairs" if len(found) > 1 else "one such pair"
        # of two splits the picture that is tested on comes first: it is the one to take out
        listed = [seen[k] for pair in ordered for k in (reversed(pair) if across else pair)]
        return Fault(
            check=cls.name,
            level=cls.level if across else "hint",
            message=f"{one.file}: nearly the same picture as {other.file} {told} ({count} in"
            f" {split + ' and ' + other_split if across else split})",
            remedy="take them out of one of the splits; scores on pictures that were trained on mean little"
            if across
            else "take one of each pair out, unless they count twice on purpose",
            split=None if across else split,
            files=tuple(str(picture.file) for picture in listed),
            names=tuple(picture.name for picture in listed),
        )
