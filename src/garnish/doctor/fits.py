"""How well a label's borders lie on what they should lie on, at all small displacements, and turned around.

A label that belongs to its picture fits best at the displacement that is usual in its set (nearly always none), and
much better there than some pixels beside it. So three faults can be told apart: it fits as well elsewhere (moved),
turned around (mirrored), or nowhere (another picture's). All are measured against the set's own labels: how far
outlines that were drawn by hand lie from edges, and how much pictures change within a class, differ from set to set.

Shape letters: R :data:`REACH`; N pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import correlate1d

from garnish.doctor.borders import Between, label_borders, picture_changes, step_of
from garnish.doctor.fault import Level
from garnish.doctor.looked import Looked

#: Largest displacement that is tried, in each direction; steps of ``borders.step_of`` pixels.
REACH = 8
#: How a label may be turned around, and in words.
FLIPS = ((False, True), (True, False), (True, True))
FLIPPED = ("left and right changed", "turned upside down", "turned by 180°")
_SIDE = 2 * REACH + 1
#: Displacements from none that are tried of a label that is turned around.
_NEAR = 3
#: Borders between two pixels that a label needs, and of how many the fit is taken.
_LEAST, _MOST = 40, 800
#: Mean strength below which there is nothing to lie on, as in a picture of one grey.
_FAINT = 1e-3
#: Labels that a set needs before one of them is judged by the others.
LEAST_LABELS = 8
#: Median contrast from which findings are warnings: measured sets above it have 0.9 or more, the one below less.
CLEAR = 0.25
#: Median contrast below which a set's labels have too little to do with what they are compared with.
LEAST_CONTRAST = 0.08


#: Rows and columns of borders, from the first that has room for REACH.
_Places = tuple[np.ndarray, np.ndarray]


class Fit(NamedTuple):
    """Mean strength under the borders, over that under borders that lie anywhere, float16.

    Attributes:
        plain: (2R + 1, 2R + 1), at displacements (down, right) from (-R, -R) to (R, R).
        turned: (3, 7, 7), of the label turned around as in FLIPS, at displacements from (-3, -3) to (3, 3).
        step: pixels of one displacement.
    """

    plain: np.ndarray
    turned: np.ndarray
    step: int


def fit_to_picture(seen: Looked, task: str) -> Fit | None:
    """How a label fits its picture; None: it has too few borders, or cannot be read.

    Raises:
        DataError: the picture cannot be read.
    """

    def make() -> Fit | None:
        places = _places(seen, task)
        return None if places is None else _fit(picture_changes(seen), places, step_of(seen))

    return seen.once(("fits.picture", task), make)


def fit_to_label(seen: Looked, task: str, other: str) -> Fit | None:
    """How the borders of a label fit those of another label of the picture; None as :func:`fit_to_picture`.

    Raises:
        DataError: the picture cannot be read.
    """

    def make() -> Fit | None:
        places = _places(seen, task)
        under = None if places is None else label_borders(seen, other)
        if places is None or under is None or sum(map(np.count_nonzero, under)) < _LEAST:
            return None
        return _fit(under, places, step_of(seen))

    return seen.once(("fits.label", task, other), make)


def _places(seen: Looked, task: str) -> list[_Places] | None:
    """Borders of a label, :data:`_MOST` evenly chosen of those with room all around; None: they are too few."""

    def choose() -> list[_Places] | None:
        lines = label_borders(seen, task)
        inner = [] if lines is None else [field[REACH:-REACH, REACH:-REACH] for field in lines]
        found = [np.flatnonzero(field) for field in inner]
        count = sum(map(len, found))
        if count < _LEAST:
            return None
        every = max(1, -(-count // _MOST))
        return [np.divmod(at[::every], max(field.shape[1], 1)) for at, field in zip(found, inner, strict=True)]

    return seen.once(("fits.places", task), choose)


def _fit(under: Between, places: Sequence[_Places], step: int) -> Fit | None:
    # a field without a place may be too narrow for a window
    windows = [(sliding_window_view(f, (_SIDE, _SIDE)), p) for f, p in zip(under, places, strict=True) if len(p[0])]
    plain = _means(windows, REACH)
    usual = float(plain[_rest()].mean())
    if usual < _FAINT:
        return None
    turned = []
    for down, right in FLIPS:
        flipped = []
        for window, (y, x) in windows:
            height, width = window.shape[:2]
            flipped.append((window, (height - 1 - y if down else y, width - 1 - x if right else x)))
        # at least as much as anywhere: what is turned around may happen to lie where nothing is
        turned.append(_means(flipped, _NEAR) / max(_mean_away(flipped), usual))
    return Fit((plain / usual).astype(np.float16), np.stack(turned).astype(np.float16), step)


def _means(windows: Sequence[tuple[np.ndarray, _Places]], reach: int) -> np.ndarray:
    """Mean strength at the places, moved by up to ``reach`` each way: (2 reach + 1, 2 reach + 1) float64.

    Args:
        windows: (h - 2R, w - 2R, 2R + 1, 2R + 1) of each field, with the places there.
        reach: R at most.
    """
    side, near = 2 * reach + 1, slice(REACH - reach, REACH + reach + 1)
    total = np.zeros((side, side))
    for window, places in windows:
        # numbers of a bool field are at most _MOST
        total += window[..., near, near][places].sum(0, dtype=np.uint16 if window.dtype == bool else np.float64)
    means: np.ndarray = total / sum(len(y) for _, (y, _) in windows)
    return means


def _mean_away(windows: Sequence[tuple[np.ndarray, _Places]]) -> float:
    """Mean strength beside the places, never along a row or column alone: a straight border lies on itself there."""
    away = REACH + np.array([-REACH, -5, 5, REACH])
    found: list[np.ndarray] = [window[y, x, away[:, None, None], away[:, None]] for window, (y, x) in windows]
    return sum(float(some.sum(dtype=np.float64)) for some in found) / sum(some.size for some in found)


def _rest() -> np.ndarray:
    """(2R + 1, 2R + 1) bool: displacements of more than 4, which say how a label fits that lies anywhere."""
    away = np.abs(np.arange(-REACH, REACH + 1))
    far: np.ndarray = np.maximum(away[:, None], away) > 4
    return far


class Contrasts:
    """What the fits of a set say: contrasts, by which a fit is above that of borders that lie anywhere.

    Attributes:
        usual: (down, right), the displacement at which the set's labels fit best.
        own: (N,) at that displacement, or one beside it.
        elsewhere: (N,) the best at three or more from it.
        moved: (N, 2) int, where that is, from the usual displacement.
        turned: (N, 3) of the label turned around.
        median: of the better of ``own`` and ``elsewhere``: what a label of this set reaches where it fits.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        plain = _eased(np.stack([fit.plain for fit in fits]))
        middle = np.median(plain, 0)
        peak = np.unravel_index(int(middle.argmax()), middle.shape)
        self.usual = (int(peak[0]) - REACH, int(peak[1]) - REACH)
        away = np.arange(2 * REACH + 1)
        apart = np.maximum(np.abs(away - peak[0])[:, None], np.abs(away - peak[1]))
        self.own = plain[:, apart <= 1].max(1)
        beside = np.where(apart >= 3, plain, -np.inf).reshape(len(plain), -1)
        self.elsewhere = beside.max(1)
        best = np.stack(np.unravel_index(beside.argmax(1), apart.shape), 1)
        self.moved = best - np.array(peak)
        self.turned = _eased(np.stack([fit.turned for fit in fits]))[..., 1:-1, 1:-1].max((2, 3))
        self.median = float(np.median(np.maximum(self.own, self.elsewhere)))

    @property
    def level(self) -> Level:
        """Warning where the set's labels follow what they are compared with clearly, else hint."""
        return "warning" if self.median >= CLEAR else "hint"

    @property
    def tells(self) -> bool:
        """Whether labels of this set follow what they are compared with, so that one that does not is odd."""
        return len(self.own) >= LEAST_LABELS and self.median >= LEAST_CONTRAST


def _eased(maps: np.ndarray) -> np.ndarray:
    """(…, h, w) float32 contrasts, each a mean over its neighbours too: borders a pixel beside an edge still count."""
    eased = maps.astype(np.float32) - 1
    for axis in (-2, -1):
        eased = correlate1d(eased, [0.25, 0.5, 0.25], axis, mode="nearest")
    return eased


def movement(moved: Sequence[int], step: int) -> str:
    """In words: 4 px right and 2 px down."""
    down, right = (int(steps) * step for steps in moved)
    words = []
    if right:
        words.append(f"{abs(right)} px {'right' if right > 0 else 'left'}")
    if down:
        words.append(f"{abs(down)} px {'down' if down > 0 else 'up'}")
    return " and ".join(words)
