"""What is counted over the bands of pictures: means, spreads, ends and pixels without data, picture by picture.

A picture is counted in float64, first its mean and then the squares of what is left; two counts are put together by the
formula of Chan, Golub and LeVeque (1979, "Updating formulae and a pairwise algorithm for computing sample variances",
equation 2.1). So no sum of squares of large numbers is taken, and the order of the pictures matters to rounding alone.

Shape letters: C bands, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from garnish.errors import DataError
from garnish.pictures.band_statistics import BandStatistics

#: Numbers below and above lie more than a whole range outside 0 … 1.
FAR_BELOW, FAR_ABOVE = -1.0, 2.0


@final
@dataclass(frozen=True, eq=False)
class BandCounts:
    """Counts over some pictures, of numbers as ``Bands.values`` gives them; every array is (C,).

    Attributes:
        pixels: of each band, with and without data.
        measured: int64, pixels with data.
        mean: float64, of the pixels with data; 0 where there are none.
        squares: float64, sum of the squared deviations from ``mean``.
        lowest, highest: float64; inf and -inf where no pixel has data.
        far: int64, pixels below :data:`FAR_BELOW` or above :data:`FAR_ABOVE`.
    """

    pixels: int
    measured: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    far: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """(C,) float64 standard deviations of the population."""
        return np.asarray(np.sqrt(self.squares / np.maximum(self.measured, 1)))

    @property
    def missing(self) -> np.ndarray:
        """(C,) float64 shares of pixels without data, 0 … 1."""
        return np.asarray(1 - self.measured / max(self.pixels, 1))

    def statistics(self, names: Sequence[str], where: str) -> BandStatistics:
        """What a model normalises by.

        Args:
            names: of the bands.
            where: prefix of messages.

        Raises:
            DataError: a band without any pixel with data, or whose pixels are all equal: nothing says what it is to
                be divided by.
        """
        for name, count, spread in zip(names, self.measured, self.std, strict=True):
            if not count:
                raise DataError(f"{where}: band {name!r} has no pixel with data; correct `channels`, or leave it out")
            if not spread > 0:
                raise DataError(f"{where}: band {name!r} holds one number only, so it tells nothing; leave it out")
        named = {"mean": self.mean, "std": self.std, "minimum": self.lowest, "maximum": self.highest}
        return BandStatistics(**{key: tuple(x.tolist()) for key, x in (named | {"missing": self.missing}).items()})


def count_bands(values: np.ndarray) -> BandCounts:
    """Count one picture, (C, H, W) float32 or float64; NaN is no data."""
    flat = values.reshape(values.shape[0], -1)
    measured, mean, squares, lowest, highest, far = (np.zeros(len(flat), d) for d in "qddddq")
    for band, row in enumerate(flat):
        here = row[~np.isnan(row)].astype(np.float64)
        measured[band] = here.size
        lowest[band], highest[band] = here.min(initial=np.inf), here.max(initial=-np.inf)
        if here.size:
            far[band] = np.count_nonzero((here < FAR_BELOW) | (here > FAR_ABOVE))
            mean[band] = here.mean()
            squares[band] = np.square(here - mean[band]).sum()
    return BandCounts(flat.shape[1], measured, mean, squares, lowest, highest, far)


def add_band_counts(one: BandCounts, other: BandCounts) -> BandCounts:
    """The counts of two lots of pictures of the same bands together."""
    measured = one.measured + other.measured
    share = other.measured / np.maximum(measured, 1)
    apart = other.mean - one.mean
    return BandCounts(
        one.pixels + other.pixels,
        measured,
        one.mean + apart * share,
        one.squares + other.squares + apart**2 * one.measured * share,
        np.minimum(one.lowest, other.lowest),
        np.maximum(one.highest, other.highest),
        one.far + other.far,
    )
