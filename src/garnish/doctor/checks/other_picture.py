"""Check: labels that are another picture's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, NamedTuple, final

import numpy as np

from garnish.doctor.borders import Between, bordered, label_borders, picture_changes
from garnish.doctor.check import Check, Seen
from garnish.doctor.fault import Fault, Level
from garnish.doctor.fit_verdicts import strange
from garnish.doctor.fits import Contrasts, Fit, fit_to_picture
from garnish.doctor.looked import Looked
from garnish.doctor.telling import fault_about
from garnish.tasks.task import Task

#: Side of the maps by which the picture is sought that a label belongs to.
_SIDE = 24
#: Labels whose picture is sought, the surest first.
_SOUGHT = 200


class _Kept(NamedTuple):
    """The fit to the own picture, and (S², ) uint8 maps of the picture's changes and of the label's borders."""

    fit: Fit
    changes: np.ndarray
    borders: np.ndarray


@final
class OtherPicture(Check):
    """Finds labels that fit nowhere near their picture, and the picture that they fit best.

    A label is compared with its own picture pixel by pixel, as ``shift`` does it. Of those that fit neither as they
    are nor moved nor turned around, coarse maps of borders are compared with those of all pictures at once.
    """

    name: ClassVar[str] = "other_picture"
    finds: ClassVar[str] = "labels whose borders have nothing to do with their picture, and the picture that they fit"
    level: ClassVar[Level] = "warning"

    @classmethod
    def over(cls, tasks: Mapping[str, Task]) -> Sequence[tuple[str, ...]]:
        """Each task whose labels have borders."""
        return bordered(tasks)

    @classmethod
    def look(cls, seen: Looked, tasks: tuple[str, ...]) -> _Kept | None:
        """The fit, and coarse maps of the picture and of the label."""
        fit, lines = fit_to_picture(seen, tasks[0]), label_borders(seen, tasks[0])
        if fit is None or lines is None:
            return None
        changes = seen.once("other_picture.changes", lambda: _coarse(picture_changes(seen)))
        return _Kept(fit, changes, _coarse(lines))

    @classmethod
    def judge(cls, seen: Sequence[Seen], tasks: tuple[str, ...]) -> Iterator[Fault]:
        """One finding about single labels."""
        (task,) = tasks
        contrasts = Contrasts([one.kept.fit for one in seen])
        found = strange(contrasts)
        if not found:
            return
        lines = _even([seen[one.place].kept.borders for one in found[:_SOUGHT]], [one.kept.borders for one in seen])
        pictures = _even([one.kept.changes for one in seen], [one.kept.changes for one in seen])
        fits = lines @ pictures.T
        first = found[0].place
        best = int(fits[0].argmax())
        told = ""
        if best != first and fits[0, best] > 0:
            told = f"; of the set's pictures it fits {seen[best].file} best"
        yield fault_about(
            cls,
            [seen[one.place] for one in found],
            f"{seen[first].labels[task]}: its borders do not lie where its picture changes{told}"
            f" ({len(found)} of {len(seen)} labels of {task} are such)",
            "look at them: a list that was sorted in another way, or names that moved by one, give pictures the"
            " labels of others",
            tasks=tasks,
            level=contrasts.level,
        )


def _coarse(fields: Between) -> np.ndarray:
    """(S²,) uint8: sums over areas, of both directions, the largest 255; every second row and column says enough."""
    sums = np.zeros(_SIDE * _SIDE)
    for field in fields:
        some = field[::2, ::2]
        areas = _areas(*some.shape)
        if some.dtype == bool:
            sums += np.bincount(areas[some], minlength=len(sums))
        else:
            sums += np.bincount(areas.reshape(-1), some.reshape(-1), len(sums))
    coarse: np.ndarray = (sums * (255 / max(float(sums.max()), 1e-6))).astype(np.uint8)
    return coarse


@lru_cache(maxsize=8)
def _areas(height: int, width: int) -> np.ndarray:
    """(height, width) number of the area that a pixel lies in."""
    rows, columns = np.arange(height) * _SIDE // max(height, 1), np.arange(width) * _SIDE // max(width, 1)
    return rows[:, None] * _SIDE + columns


def _even(maps: Sequence[np.ndarray], of_set: Sequence[np.ndarray]) -> np.ndarray:
    """(n, S²) float32 of length 1, less the mean of the set: where all pictures change says nothing."""
    given = np.stack(maps).astype(np.float32) - np.mean(np.stack(of_set), 0, dtype=np.float32)
    even: np.ndarray = given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1e-6)
    return even
