"""Check "odd_sizes": pictures of another size or shape than the others of the set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_of
from garnish.tasks.task import Task

#: Pictures that are needed to know what is usual; share of them that has one size where another is odd; factors of
#: shape and of pixels where there are many sizes.
_PICTURES, _ONE_SIZE, _SHAPE, _AREA = 8, 0.9, 2.5, 16.0


@final
class OddSizes(Check):
    """Other sizes where nine of ten pictures have one; else far other shapes or numbers of pixels."""

    name: ClassVar[str] = "odd_sizes"
    finds: ClassVar[str] = "pictures of another size, shape or number of pixels than all others"
    level: ClassVar[Level] = "hint"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Pictures alone."""
        return [()]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(H, W)."""
        return tuple(seen.image.shape[-2:])

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all such pictures."""
        if len(seen) < _PICTURES:
            return
        sizes = Counter(tuple(sorted(one.kept)) for one in seen)  # on its side is the same
        common, count = sizes.most_common(1)[0]
        if count >= _ONE_SIZE * len(seen):
            found = [(1.0 / sizes[size], one) for one in seen if (size := tuple(sorted(one.kept))) != common]
            told = f"where {count} of {len(seen)} are {common[1]}x{common[0]}"
        else:
            sides = np.log(np.array([sorted(one.kept) for one in seen], np.float64))
            shape, area = sides[:, 1] - sides[:, 0], sides.sum(1)
            off = np.maximum(
                np.abs(shape - np.median(shape)) / np.log(_SHAPE), np.abs(area - np.median(area)) / np.log(_AREA)
            )
            found = [(float(how), one) for how, one in zip(off, seen, strict=True) if how > 1]
            told = "far from the shape or the number of pixels of the others"
        if found:
            height, width = max(found, key=lambda x: x[0])[1].kept
            what = f"is {width}x{height}, {told}"
            yield fault_of(cls, found, what, "look whether it belongs to the set", of=len(seen))
