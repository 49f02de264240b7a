"""Check "normal_length": files of normals whose vectors are not of length 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.quantities import MOST_COUNTED
from garnish.doctor.telling import fault_of
from garnish.targets.unit_vectors import UnitVectors
from garnish.tasks.task import Task

#: How far from 1 a length may be (8 bits are exact to 0.01), the share of vectors that may be farther, and the length
#: below which a vector is a background colour, as readers take it.
_OFF, _SHARE, _NONE = 0.1, 0.05, 0.1


@final
class NormalLength(Check):
    """Vectors that are not of length 1 before they are normalised.

    Reading normalises them, so training goes on with directions that mean little where colours were changed.
    """

    name: ClassVar[str] = "normal_length"
    finds: ClassVar[str] = (
        "normals that are not of length 1 in their file: compressed, blurred, of another range of values, or a picture"
        " that holds no normals"
    )
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of unit vectors."""
        return [(name,) for name, task in tasks.items() if task.target is UnitVectors]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """(Share of vectors of another length, their median length); None: no file of three channels."""
        stored = seen.stored(tasks[0])
        if not isinstance(stored, np.ndarray) or stored.ndim != 3 or stored.dtype.kind not in "uf":
            return None
        raw = stored if stored.shape[-1] == 3 else np.moveaxis(stored, 0, -1)
        if raw.shape[-1] != 3:
            return None
        step = max(1, math.ceil(math.sqrt(raw.shape[0] * raw.shape[1] / MOST_COUNTED)))
        grid = raw[step // 2 :: step, step // 2 :: step].reshape(-1, 3)
        kept = (grid != 0).any(-1)
        for value in getattr(seen.reader(tasks[0]), "invalid", ()):
            kept &= ~((np.isnan(grid) if math.isnan(value) else grid == value).all(-1))
        vectors = grid[kept].astype(np.float32)
        if raw.dtype.kind == "u":
            vectors = vectors * np.float32(2 / np.iinfo(raw.dtype).max) - 1
        length = np.sqrt((vectors**2).sum(-1))
        length = length[np.isfinite(length) & (length >= _NONE)]
        off = np.abs(length - 1) > _OFF
        if not len(length):
            return None
        return float(off.mean()), float(np.median(length[off])) if off.any() else 1.0

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for all such labels."""
        found = [(one.kept[0], one) for one in seen if one.kept[0] > _SHARE]
        if found:
            share, length = max(one.kept for _, one in found)
            yield fault_of(
                cls,
                found,
                f"{share:.0%} of its normals are not of length 1 (median of those {length:.2f})",
                "look whether the file holds normals, was saved as JPEG or resized; save the originals as PNG or .npy",
                of=len(seen),
                tasks=tasks,
            )
