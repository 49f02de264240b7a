"""Check: normals against those that depth implies.

On a plane n · P = d with normal n, seen through a pinhole, a pixel (u, v) has the inverse depth
w = (nx (u - cx) / f + ny (v - cy) / f + nz) / d. Its gradient is (nx, ny) / (f d): whatever the focal length f and the
centre (cx, cy), it has the direction of (nx, ny), and the other sense, since d < 0 where the normal points at the
camera. So directions within the picture can be compared without knowing the camera, for square pixels and depth along
z (distances along rays bend planes). What z of the normal says is not seen by this; the check of normals alone sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import ClassVar, NamedTuple, final

import numpy as np
from torch import Tensor

from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_about
from garnish.targets.distances import Distances
from garnish.targets.unit_vectors import UnitVectors
from garnish.tasks.task import Task

#: Points across the longer side at which both are compared; the least that say something.
_ACROSS, _LEAST = 120, 60
#: Length of (nx, ny) below which a surface is seen from the front, and has no direction in the picture.
_TILTED = 0.25
#: Second difference of inverse depth, in parts of it, above which there is a step and not a surface.
_BENT = 0.01
#: Axes that may be exchanged or negated: (exchanged, x negated, y negated), the files' own first.
_FRAMES = tuple(product((False, True), (False, True), (False, True)))
#: Mean cosines: of a frame that fits; by which it must be better than the set's; by which a picture must be below the
#: set's median, also in median absolute deviations: derived normals agree to a hundredth, measured ones do not.
_FITS, _BETTER, _BELOW, _DEVIATIONS = 0.5, 0.3, 0.1, 8
#: Pictures that a set needs before one of them is judged by the others.
_FEWEST = 8


class _Agreement(NamedTuple):
    """Means of the products of components of the two directions: of x with x, y with y, x with y, y with x."""

    xx: float
    yy: float
    xy: float
    yx: float


@final
class NormalsDepth(Check):
    """Compares the direction in which normals are tilted with that in which inverse depth changes."""

    name: ClassVar[str] = "normals_depth"
    finds: ClassVar[str] = "normals whose axes, or whose picture, are not those of the depth beside them"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Every task of normals with every one of depth."""
        of = {kind: [name for name, task in tasks.items() if task.target is kind] for kind in (UnitVectors, Distances)}
        return list(product(of[UnitVectors], of[Distances]))

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> _Agreement | None:
        """How the two directions agree; None: too few tilted surfaces."""
        normals, depth = (seen.target(task) for task in tasks)
        if normals is None or depth is None or normals.shape[-2:] != depth.shape[-2:]:
            return None
        return _agreement(normals.as_subclass(Tensor).numpy(), depth.as_subclass(Tensor).numpy()[0])

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding about the set, and one about single labels."""
        cosines = _cosines(np.array([one.kept for one in seen]))
        middle = np.median(cosines, 0)
        best = int(middle.argmax())
        task, depth = tasks
        if len(seen) < _FEWEST or middle[best] < _FITS:
            return
        if best and middle[best] - middle[0] > _BETTER:
            yield fault_about(
                cls,
                seen,
                f"{seen[0].labels[task]}: normals fit those of {depth} with {_words(best)} (mean cosine"
                f" {middle[best]:.2f} in the picture, as they are {middle[0]:.2f}; {len(seen)} pictures)",
                _remedy(best),
                tasks=tasks,
            )
        gain = cosines.max(1) - cosines[:, best]
        deviation = float(np.median(np.abs(cosines[:, best] - middle[best])))
        allowed = max(_BELOW, _DEVIATIONS * deviation)
        turned = (cosines.max(1) > _FITS) & (gain > _BETTER)
        odd = turned | (cosines[:, best] < middle[best] - allowed)
        places = sorted(np.flatnonzero(odd).tolist(), key=lambda k: cosines[k, best])
        if places:
            first = places[0]
            how = f"; with {_words(int(cosines[first].argmax()))} they would" if turned[first] else ""
            yield fault_about(
                cls,
                [seen[k] for k in places],
                f"{seen[first].labels[task]}: normals do not fit {seen[first].labels[depth]}{how} (mean cosine"
                f" {cosines[first, best]:.2f}, in the set {middle[best]:.2f}; {len(places)} of {len(seen)}"
                " pictures are such)",
                "export the normals of these pictures anew, with the axes of the others",
                tasks=tasks,
            )


def _agreement(normals: np.ndarray, depth: np.ndarray) -> _Agreement | None:
    """Of (3, H, W) normals and (H, W) depth."""
    step = max(1, round(max(depth.shape) / _ACROSS / 2))
    inner = slice(step, -step, 2 * step)
    middle = (inner, inner)
    if min(depth.shape) < 4 * step:
        return None
    above, below = depth[: -2 * step : 2 * step, inner], depth[2 * step :: 2 * step, inner]
    left, right = depth[inner, : -2 * step : 2 * step], depth[inner, 2 * step :: 2 * step]
    rows, columns = (depth[middle].shape[0], depth[middle].shape[1])
    parts = [depth[middle], *(part[:rows, :columns] for part in (above, below, left, right))]
    known = np.all([part > 0 for part in parts], 0)
    centre, above, below, left, right = (1 / np.where(known, part, 1) for part in parts)
    nx, ny = normals[0][middle], normals[1][middle]
    known &= np.abs(above + below - 2 * centre) < _BENT * centre
    known &= np.abs(left + right - 2 * centre) < _BENT * centre
    across, down = right - left, below - above
    slope, tilt = np.hypot(across, down), np.hypot(nx, ny)
    known &= (tilt > _TILTED) & (slope > 0)
    if int(known.sum()) < _LEAST:
        return None
    ox, oy = across[known] / slope[known], down[known] / slope[known]
    px, py = -nx[known] / tilt[known], -ny[known] / tilt[known]
    return _Agreement(*(float((a * b).mean()) for a, b in ((ox, px), (oy, py), (ox, py), (oy, px))))


def _cosines(agreements: np.ndarray) -> np.ndarray:
    """(N, 4) → (N, 8) mean cosines with the axes as each of _FRAMES has them."""
    made = []
    for exchanged, x, y in _FRAMES:
        of_x, of_y = agreements[:, 2 if exchanged else 0], agreements[:, 3 if exchanged else 1]
        made.append((-1 if x else 1) * of_x + (-1 if y else 1) * of_y)
    return np.stack(made, 1)


def _words(frame: int) -> str:
    exchanged, x, y = _FRAMES[frame]
    negated = " and ".join(axis for axis, is_so in (("x", x), ("y", y)) if is_so)
    told = [*(["x and y exchanged"] if exchanged else []), *([f"{negated} negated"] if negated else [])]
    return ", then ".join(told)


def _remedy(frame: int) -> str:
    exchanged, x, y = _FRAMES[frame]
    if exchanged:
        return "exchange x and y of the files, which no option does"
    if x and y:
        return (
            "write `flip: [x, y]` (or `axes`) for the normals, or `flip: [x, y, z]` where `check` also finds that they"
            " point away from the camera"
        )
    return f"write `flip: [{'x' if x else 'y'}]` (or `axes`) for the normals"
