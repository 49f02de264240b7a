"""Whether a picture's numbers are on another scale than those that a model was trained on: once, as one line.

A file of 0 … 1 where numbers up to 10,000 are meant, or the other way round, has the right bands and gives a map that
looks like one: of a single class. Nothing else would tell.

Shape letters: C bands, H W pixels.
"""

from __future__ import annotations

import math

import numpy as np

from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands

#: Pixels of a picture that are looked at, of a grid.
_LOOKED_AT = 2**14
#: Share of a training spread that the numbers of a whole picture stay within, and the share of its pixels that lie more
#: than the whole training range away: both hold of another scale, neither of a dark, a bright or an even picture.
_EVEN, _AWAY = 1 / 50, 0.5
#: Bands and statistics of which it was told already, in this process.
_TOLD: set[tuple[Bands, BandStatistics | None]] = set()


def odd_scale(
    values: np.ndarray, bands: Bands, statistics: BandStatistics | None, where: str, dtype: np.dtype | None = None
) -> str:
    """A line where most bands of a picture are on another scale; empty: they are not, or it was told before.

    Told are numbers that cannot have been those of training pictures: more than half of a band lies farther outside
    its smallest and largest number than these are apart; or all of it lies within a fiftieth of its standard deviation,
    without being one number; or the file's type has no number as large as its mean.

    Args:
        values: (C, H, W) floats as models take them, NaN where there are no data.
        bands: that read them.
        statistics: of the training pictures; None: 0 … 1 stand for them.
        where: the picture.
        dtype: of its numbers as they are stored; None: not known.
    """
    if bands.is_rgb or (bands, statistics) in _TOLD:
        return ""
    step = max(1, math.ceil(math.sqrt(values[0].size / _LOOKED_AT)))
    odd = []
    for band, plane in enumerate(values[:, ::step, ::step]):
        known = plane[np.isfinite(plane)]
        if known.size and _is_odd(known, band, bands, statistics, dtype):
            odd.append((band, float(known.min()), float(known.max())))
    if 2 * len(odd) <= len(values):
        return ""
    _TOLD.add((bands, statistics))
    band, *own = odd[0]
    low, high = _known(statistics, band)[:2]
    mine = " to ".join(f"{_stored(value, bands, band):.4g}" for value in own)
    theirs = " to ".join(f"{_stored(value, bands, band):.4g}" for value in (low, high))
    what = f"those of training went from {theirs}" if statistics is not None else f"`range` says {theirs}"
    kind = "" if dtype is None else f" ({dtype})"
    return (
        f"{where}: band {bands.names[band]!r} holds {mine}{kind}, and {what}: another scale, of which the map tells"
        f" nothing ({len(odd)} of {len(values)} bands); give numbers as the training files held them"
    )


def _is_odd(
    known: np.ndarray, band: int, bands: Bands, statistics: BandStatistics | None, dtype: np.dtype | None
) -> bool:
    low, high, mean, std = _known(statistics, band)
    away = (known < low - (high - low)) | (known > high + (high - low))
    if away.mean() > _AWAY:
        return True
    if 0 < known.max() - known.min() < _EVEN * std:
        return True
    if dtype is None or dtype.kind not in "ui" or bands.range is None:
        return False
    return np.iinfo(dtype).max < _stored(mean, bands, band)


def _known(statistics: BandStatistics | None, band: int) -> tuple[float, float, float, float]:
    """Smallest and largest number, mean and standard deviation of a band."""
    if statistics is None:
        return 0.0, 1.0, 0.5, 0.2
    return statistics.minimum[band], statistics.maximum[band], statistics.mean[band], statistics.std[band]


def _stored(value: float, bands: Bands, band: int) -> float:
    """A number that models take as the file holds it; itself where the file's type says what is 0 and 1."""
    if bands.range is None:
        return value
    count = len(bands.names)
    low, high = (np.broadcast_to(end, count)[band] for end in bands.ends(np.dtype(np.float64), ""))
    scale, offset = (np.broadcast_to(one, count)[band] for one in (bands.scale, bands.offset))
    return float((value * (high - low) + low - offset) / scale)
