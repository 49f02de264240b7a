"""Check "normal_axes": normals whose axes are not those that the description states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
from torch import Tensor

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.quantities import MOST_COUNTED
from garnish.doctor.robust import centre_and_spread
from garnish.doctor.telling import fault_of
from garnish.targets.unit_vectors import UnitVectors
from garnish.tasks.task import Task

#: Labels that are needed to know what is usual; how much likelier (natural logarithm) another axis must be; how far,
#: in standard deviations, the label may then be from the others.
_LABELS, _LIKELIER, _NEAR = 8, 10.0, 3.0
#: What of :meth:`NormalAxes.look` changes its sign with an axis: mean x, y, z, and x and y by place in the picture.
_CHANGED = {"x": (0, 3), "y": (1, 4), "z": (2,)}


@final
class NormalAxes(Check):
    """Normals that point away from the camera, and labels whose signs are those of the others with an axis turned.

    What is seen faces the camera: z (forward) is below 0. For x and y there is no such rule, but the pictures of a set
    are alike: floors are below and walls at the sides. A label is told where one axis turned round, or x and z
    exchanged, makes it far likelier among the others.
    """

    name: ClassVar[str] = "normal_axes"
    finds: ClassVar[str] = (
        "normals of other axes than stated: z away from the camera; single files with x, y or z turned round, or with"
        " red and blue exchanged, against the rest of the set"
    )
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task of unit vectors."""
        return [(name,) for name, task in tasks.items() if task.target is UnitVectors]

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> Any | None:
        """Mean x, y and z, mean x · place across and y · place down, and share of z above 0; None: no valid label."""
        target = seen.target(tasks[0])
        if target is None:
            return None
        height, width = target.shape[-2:]
        step = max(1, math.ceil(math.sqrt(height * width / MOST_COUNTED)))
        grid = target.as_subclass(Tensor)[:, step // 2 :: step, step // 2 :: step].numpy()
        labelled = (grid != 0).any(0)
        count = int(labelled.sum())
        if not count:
            return None
        down, across = (np.linspace(-1, 1, n, dtype=np.float32) for n in grid.shape[1:])
        x, y, z = grid
        sums = [x.sum(), y.sum(), z.sum(), (x * across).sum(), (y * down[:, None]).sum(), (z > 0).sum()]
        return tuple(float(total) / count for total in sums)

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One fault for normals that point away, and one for each other axis."""
        numbers = np.array([one.kept for one in seen])
        away = numbers[:, 5] > 0.5
        found: dict[str, list[tuple[float, Seen]]] = {}
        for k in np.flatnonzero(away).tolist():
            found.setdefault("z", []).append((numbers[k, 5], seen[k]))
        if len(seen) >= _LABELS and away.mean() < 0.5:
            usual = [centre_and_spread(column, least=0.02) for column in numbers[:, :5].T]
            centre, spread = (np.array(part) for part in zip(*usual, strict=True))
            for k in np.flatnonzero(~away).tolist():
                if best := _turned(numbers[k, :5], centre, spread):
                    found.setdefault(best[0], []).append((best[1], seen[k]))
        for axis, those in found.items():
            what, remedy = _words(axis, len(those) > len(seen) / 2, tasks[0])
            yield fault_of(cls, those, what, remedy, of=len(seen), tasks=tasks)


def _turned(numbers: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> tuple[str, float] | None:
    """The axis that is turned round in a label, or "x and z" exchanged, and how much likelier that is."""
    found = []
    for axis, places in (*_CHANGED.items(), ("x and z", (0, 2))):
        at = list(places)
        other = numbers[at][::-1] if axis == "x and z" else -numbers[at]
        before = (numbers[at] - centre[at]) / spread[at]
        after = (other - centre[at]) / spread[at]
        if (np.abs(after) < _NEAR).all():
            found.append((float((before**2 - after**2).sum() / 2), axis))
    likelier, axis = max(found, default=(0.0, ""))
    return (axis, likelier) if likelier > _LIKELIER else None


def _words(axis: str, most: bool, task: str) -> tuple[str, str]:
    """What is told of an axis, and the remedy."""
    if axis == "z":
        what = "its normals point away from the camera (z is forward, so z of what is seen is below 0)"
    elif axis in _CHANGED:
        what = f"its normals are those of the others with {axis} turned round"
    else:
        what = "its normals are those of the others with x and z exchanged, as red and blue may be"
    if most and axis in _CHANGED:
        return what, f"write `flip: [{axis}]` or `axes` (tasks.{task})"
    return what, "save this file with the axes of the others"
