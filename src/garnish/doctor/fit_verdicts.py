"""From the fits of a set to those labels that are moved, turned around, or another picture's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from garnish.doctor.fits import FLIPPED, REACH, Contrasts

#: Shares of the contrast that labels of the set have in the median: what a fit must have, must be better
#: by, has of another picture's label, and has of a label that is in its place (whatever else it fits, if symmetric).
GOOD, GAIN, POOR, FITS = 0.4, 0.22, 0.27, 0.7


class FitVerdict(NamedTuple):
    """One label, by its place among the fits; ``how`` in words, and how sure: the larger, the surer."""

    place: int
    how: str
    moved: tuple[int, int]
    sure: float


def moved(contrasts: Contrasts) -> list[FitVerdict]:
    """Labels that fit clearly better some pixels beside where the set's labels fit, the surest first."""
    if not contrasts.tells:
        return []
    gain = (contrasts.elsewhere - contrasts.own) / contrasts.median
    found = (contrasts.elsewhere > GOOD * contrasts.median) & (gain > GAIN)
    found &= (contrasts.turned.max(1) < contrasts.elsewhere) & (contrasts.own < FITS * contrasts.median)
    # a best fit at the end of what is tried is the slope of one beyond it, or a pattern that repeats
    found &= np.abs(contrasts.moved + np.array(contrasts.usual)).max(1) < REACH
    return _sorted(
        FitVerdict(int(k), "", (int(contrasts.moved[k][0]), int(contrasts.moved[k][1])), float(gain[k]))
        for k in np.flatnonzero(found)
    )


def turned(contrasts: Contrasts) -> list[FitVerdict]:
    """Labels that fit clearly better turned around, the surest first."""
    if not contrasts.tells:
        return []
    best = np.maximum(contrasts.own, contrasts.elsewhere)
    which = contrasts.turned.argmax(1)
    gain = (contrasts.turned.max(1) - best) / contrasts.median
    found = (contrasts.turned.max(1) > GOOD * contrasts.median) & (gain > GAIN) & (best < FITS * contrasts.median)
    return _sorted(FitVerdict(int(k), FLIPPED[which[k]], (0, 0), float(gain[k])) for k in np.flatnonzero(found))


def strange(contrasts: Contrasts) -> list[FitVerdict]:
    """Labels that fit nowhere, neither moved nor turned around, the surest first."""
    if not contrasts.tells:
        return []
    taken = {verdict.place for verdict in (*moved(contrasts), *turned(contrasts))}
    share = contrasts.own / contrasts.median
    return _sorted(
        FitVerdict(int(k), "", (0, 0), float(1 - share[k])) for k in np.flatnonzero(share < POOR) if int(k) not in taken
    )


def _sorted(verdicts: Iterable[FitVerdict]) -> list[FitVerdict]:
    return sorted(verdicts, key=lambda verdict: -verdict.sure)
