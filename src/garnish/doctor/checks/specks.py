"""Check "specks": regions of a few pixels in label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from torch import Tensor

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.label_codes import connected_regions
from garnish.doctor.looked import Looked
from garnish.doctor.mending import without_specks
from garnish.doctor.robust import centre_and_spread
from garnish.doctor.telling import fault_of
from garnish.targets.class_ids import ClassIds
from garnish.targets.target import IGNORE
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task

#: Pixels of a speck: this share of its map, at least and at most so many; specks of a label that are worth a word.
_SHARE, _SMALLEST, _LARGEST, _LEAST = 2.5e-5, 3, 64, 8
#: Standard deviations of the set's labels that a label must have more.
_FAR = 4.5


@final
class Specks(Check):
    """More connected regions of a few pixels than other labels of the set have.

    Regions touch at sides or corners; those without a label do not count. A speck has 8 pixels at most where a picture
    has 640 x 480. Far-away things are as small, so labels are compared with those of the same set.
    """

    name: ClassVar[str] = "specks"
    finds: ClassVar[str] = "labels with many regions of a few pixels (8 at 640 x 480), more than others of the set have"
    level: ClassVar[Level] = "hint"
    fixes: ClassVar[Mapping[str, str]] = {
        "fill": "regions of one or two pixels within a single other region become that region; larger ones stay"
    }

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of ids or of yes and no."""
        return [(name,) for name, task in tasks.items() if task.target in (ClassIds, YesOrNo)]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Number of specks and of other regions; None: no label that can be read, be its ids listed or not."""
        target = seen.decoded(tasks[0])
        if target is None:
            return None
        ids = target.as_subclass(Tensor).reshape(target.shape[-2:]).numpy().astype(np.int32)
        regions = connected_regions(ids)
        small = regions.sizes <= min(max(_SHARE * ids.size, _SMALLEST), _LARGEST)
        labelled = regions.values != IGNORE
        return int((small & labelled).sum()), int((~small & labelled).sum())

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for the labels that have more than others, or for all if all have many."""
        # Anscombe's root, which gives counts of any size the same spread
        roots = [(one.kept[0] + 0.375) ** 0.5 for one in seen]
        middle, spread = centre_and_spread(roots, least=0.5)
        far = [
            (float(one.kept[0]), one)
            for one, root in zip(seen, roots, strict=True)
            if one.kept[0] >= _LEAST and root > middle + _FAR * spread
        ]
        many = [(float(one.kept[0]), one) for one in seen if one.kept[0] >= max(_LEAST, one.kept[1])]
        found = many if len(many) > len(seen) / 2 else far
        if found:
            count = int(max(number for number, _ in found))
            yield fault_of(
                cls,
                found,
                f"{count} regions of a few pixels, where the median of the set has {round(middle**2 - 0.375)}",
                "look at the label: noise of a tool or of a model is to be cleaned, far-away things may stay",
                of=len(seen),
                tasks=tasks,
                fix="fill",
            )

    @classmethod
    def fixed(cls, fix: str, file: Path, seen: Looked, tasks: tuple[str, ...]) -> bytes:
        """Regions of one or two pixels within a single other one are filled."""
        return without_specks(file)
