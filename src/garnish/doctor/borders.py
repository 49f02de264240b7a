"""Where a picture changes between neighbours, and where a label does: what a label and its picture have in common.

Both are held between pixels: ``across`` (h, w - 1) between a pixel and its right neighbour, ``along`` (h - 1, w)
between a pixel and the one below, so that a label that fits has its borders exactly where the picture changes.

Shape letters: H W pixels; h w those of every ``step``-th row and column.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from garnish.doctor.looked import Looked
from garnish.targets.class_ids import ClassIds
from garnish.targets.distances import Distances
from garnish.targets.target import IGNORE, Target
from garnish.targets.unit_vectors import UnitVectors
from garnish.targets.unitless import Unitless
from garnish.targets.yes_or_no import YesOrNo
from garnish.tasks.task import Task

#: Kinds of target that have borders.
KINDS: tuple[type[Target], ...] = (ClassIds, YesOrNo, Distances, UnitVectors, Unitless)
#: Up to twice this longer side every pixel is taken.
_FULL = 640
#: Depth changes by this share between neighbours at a step, numbers without a unit by this share of their range.
_STEP = 0.03
#: Cosine of two neighbouring normals at a crease, at most: 26 degrees apart.
_CREASE = 0.9


class Between(NamedTuple):
    """Something between neighbouring pixels: strengths float32, or borders bool."""

    across: np.ndarray
    along: np.ndarray


def bordered(tasks: Mapping[str, Task]) -> list[tuple[str, ...]]:
    """The tasks whose labels have borders, each by itself."""
    return [(name,) for name, task in tasks.items() if task.target in KINDS]


def pairs(tasks: Mapping[str, Task]) -> list[tuple[str, ...]]:
    """Every two tasks whose labels have borders."""
    return [(one, other) for (one,), (other,) in combinations(bordered(tasks), 2)]


def step_of(seen: Looked) -> int:
    """Pixels from one row or column taken to the next."""
    return max(1, int(max(seen.pixels.shape[:2])) // _FULL)


def picture_changes(seen: Looked) -> Between:
    """How strongly the picture changes between neighbours, float32: roots of differences of grey levels.

    One strong line does not outweigh many faint ones so.

    Raises:
        DataError: the picture cannot be read.
    """
    return seen.once("borders.strengths", lambda: _strengths(seen))


def label_borders(seen: Looked, task: str) -> Between | None:
    """Where a label changes between neighbours that both have one, bool; None: it has no borders, or cannot be read.

    Classes and yes or no: where they differ; depth and numbers without a unit: where they jump; normals: where they
    turn.
    """
    return seen.once(("borders.borders", task), lambda: _borders(seen, task))


def _strengths(seen: Looked) -> Between:
    levels = seen.levels
    if (step := step_of(seen)) > 1:
        size = (levels.shape[1] // step, levels.shape[0] // step)
        levels = np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BOX))
    differences = (np.maximum(one, other) - np.minimum(one, other) for one, other in _neighbours(levels))
    return Between(*(np.sqrt(field, dtype=np.float32) for field in differences))


def _neighbours(values: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Views of all pixels with a right neighbour, and these; of all with one below, and these; last two axes."""
    return (values[..., :, :-1], values[..., :, 1:]), (values[..., :-1, :], values[..., 1:, :])


def _borders(seen: Looked, task: str) -> Between | None:
    target = seen.target(task)
    if target is None:
        return None
    kind, step = seen.dataset.tasks[task].target, step_of(seen)
    height, width = (side // step for side in target.shape[-2:])
    values = _plain(target)[..., step // 2 :: step, step // 2 :: step][..., :height, :width]
    if kind in (ClassIds, YesOrNo):
        found = [_changes(one, other) for one, other in _neighbours(values.reshape(height, width).astype(np.uint8))]
    elif kind is Distances:
        found = [_steps(one, other) for one, other in _neighbours(values[0])]
    elif kind is UnitVectors:
        found = [_creases(one, other) for one, other in _neighbours(values)]
    elif kind is Unitless:
        known = values[np.isfinite(values)]
        least = _STEP * float(known.max() - known.min()) if known.size else 0.0
        # no number is larger than another by NaN, so pixels without a label are no border
        found = [np.abs(one - other) > max(least, 1e-12) for one, other in _neighbours(values[0])]
    else:
        return None
    return Between(*found)


def _plain(target: Tensor) -> np.ndarray:
    array: np.ndarray = target.as_subclass(Tensor).numpy()
    return array


def _changes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    changed: np.ndarray = (one != other) & (one != IGNORE) & (other != IGNORE)
    return changed


def _steps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    near, far = np.minimum(one, other), np.maximum(one, other)
    known = near > 0
    near *= np.float32(1 + _STEP)  # in place: memory for each step of this takes longer than the numbers
    stepped: np.ndarray = far > near
    stepped &= known
    return stepped


def _creases(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    known = one.any(0) & other.any(0)
    turned: np.ndarray = (np.einsum("chw,chw->hw", one, other) < _CREASE) & known
    return turned
