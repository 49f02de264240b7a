"""``BandStatistics``: what was counted over the bands of some pictures, by which a model normalises them ever after.

Numbers are those that models take: after ``Bands.values``, so 0 and 1 are the ends of the bands' range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from garnish.checking.arguments import Options
from garnish.checking.plain_data import lengths, reals
from garnish.errors import OptionError
from garnish.pictures.bands import MOST_BANDS

_PerBand = Annotated[tuple[Annotated[float, reals(-1e30, 1e30)], ...], lengths(1, MOST_BANDS)]


@final
@dataclass(frozen=True, kw_only=True)
class BandStatistics(Options):
    """Statistics of each band over some pictures; pixels without data are left out.

    Attributes:
        mean: of each band.
        std: standard deviation of each band (of the population).
        minimum: smallest number of each band.
        maximum: largest number of each band.
        missing: share of pixels of each band without data, 0 … 1.

    Raises:
        OptionError: lists of different lengths.

    Example:
        >>> one = gn.BandStatistics(mean=(0.2,), std=(0.1,), minimum=(0.0,), maximum=(0.9,), missing=(0.0,))
        >>> one.mean
        (0.2,)
    """

    mean: _PerBand
    std: _PerBand
    minimum: _PerBand
    maximum: _PerBand
    missing: _PerBand

    def __post_init__(self) -> None:
        found = {len(getattr(self, name)) for name in ("mean", "std", "minimum", "maximum", "missing")}
        if len(found) > 1:
            raise OptionError(
                f"statistics: lists of {', '.join(map(str, sorted(found)))} bands; give one number a band"
            )
