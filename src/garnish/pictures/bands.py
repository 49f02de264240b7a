"""``Bands``: what the channels of pictures are called, and how the numbers of their files are read.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, final

import numpy as np

from garnish.checking.arguments import Options
from garnish.checking.plain_data import Json, Reading, Within, lengths, read_as, reals
from garnish.errors import DataError, GarnishError, OptionError
from garnish.files.band_names import RED_GREEN_BLUE
from garnish.registry import plain

#: Most bands of a picture; hyperspectral cameras have some hundreds.
MOST_BANDS = 1024

#: Numbers that JSON has not, as it holds them.
_INFINITE = {"inf": math.inf, "-inf": -math.inf}

_Number = Annotated[float, reals(-1e30, 1e30)]
_PerBand = Annotated[tuple[_Number, ...], lengths(1, MOST_BANDS)]
_NoData = Annotated[float, Within("a number, nan or inf", finite=False)]
_Ends = tuple[_Number, _Number]


@final
@dataclass(frozen=True, kw_only=True)
class Bands(Options):
    """The bands of pictures, in the order of their files' channels.

    A file's number v means v · scale + offset (a reflectance, metres above the sea); of that, ``range`` says what
    becomes 0 and 1, which is what models take; values beyond are kept, not cut. Three bands of 8 bits called red, green
    and blue, with all else left out, are an ordinary picture.

    Attributes:
        names: of the bands, each once; red, green and blue are those that pretrained trunks know.
        range: the numbers that become 0 and 1, one pair or one a band; None: those of the file's type (0 … 255,
            0 … 65535), for integers alone.
        scale: one number, or one a band.
        offset: likewise.
        nodata: the stored number that means "not measured"; NaN always does. None: no number does.

    Raises:
        OptionError: names that repeat or are empty, lists of another length than ``names``, an empty range, scale 0.

    Example:
        >>> bands = gn.Bands(names=("red", "green", "blue", "infrared"), scale=1e-4, range=(0.0, 1.0))
        >>> len(bands.names)
        4
    """

    names: Annotated[tuple[str, ...], lengths(1, MOST_BANDS)] = RED_GREEN_BLUE
    range: _Ends | Annotated[tuple[_Ends, ...], lengths(1, MOST_BANDS)] | None = None
    scale: _Number | _PerBand = 1.0
    offset: _Number | _PerBand = 0.0
    nodata: _NoData | None = None

    def __post_init__(self) -> None:
        if self.nodata is not None and math.isnan(self.nodata):  # which means it anyway, and is not equal to itself
            object.__setattr__(self, "nodata", None)
        if not all(name.strip() for name in self.names) or len(set(self.names)) < len(self.names):
            raise OptionError(f"channels.names: {', '.join(map(repr, self.names))}: give each band a name of its own")
        for option in ("scale", "offset"):
            value = getattr(self, option)
            if isinstance(value, tuple) and len(value) != len(self.names):
                raise OptionError(
                    f"channels.{option}: {len(value)} numbers for {len(self.names)} bands; give one, or one a band"
                )
        pairs = self._pairs()
        if pairs is not None and len(pairs) not in (1, len(self.names)):
            raise OptionError(
                f"channels.range: {len(pairs)} pairs for {len(self.names)} bands; give one, or one a band"
            )
        if any(low >= high for low, high in pairs or ()):
            raise OptionError(f"channels.range: {self.range}: give the smaller number first")
        if np.any(np.asarray(self.scale) == 0):
            raise OptionError("channels.scale: 0 would make all numbers equal; give another")

    def or_nodata(self, nodata: float | None) -> Bands:
        """These, with the number for "no data" that a file names where they name none themselves."""
        return self if self.nodata is not None else replace(self, nodata=nodata)

    @property
    def is_rgb(self) -> bool:
        """Whether they are those of an ordinary picture, which is read as 8-bit RGB."""
        return self == RGB_BANDS

    @property
    def rgb(self) -> tuple[int | None, int | None, int | None]:
        """Where red, green and blue are among the bands; None for one that is not there."""
        found = [self.names.index(name) if name in self.names else None for name in RED_GREEN_BLUE]
        return found[0], found[1], found[2]

    @property
    def others(self) -> tuple[int, ...]:
        """Where the bands are that are not red, green or blue."""
        return tuple(place for place, name in enumerate(self.names) if name not in RED_GREEN_BLUE)

    def facts(self) -> dict[str, Json]:
        """As JSON holds it, for :meth:`read`."""
        told: dict[str, Json] = plain(self)
        if self.nodata is not None and math.isinf(self.nodata):
            told["nodata"] = str(self.nodata)
        return told

    @classmethod
    def read(cls, facts: Mapping[str, Json], at: str, error: type[GarnishError]) -> Bands:
        """What :meth:`facts` has told.

        Args:
            facts: of a stranger.
            at: their place, for messages.
            error: what is raised.
        """
        told = dict(facts)
        if isinstance(told.get("nodata"), str):
            told["nodata"] = _INFINITE.get(told["nodata"], told["nodata"])
        try:
            return read_as(told, cls, at, Reading(error=error))
        except OptionError as odd:
            raise error(str(odd)) from None

    def values(self, stored: np.ndarray, where: str) -> np.ndarray:
        """Numbers as a file holds them, (H, W, C) → (C, H, W) float32, 0 and 1 at the ends of ``range``.

        Pixels without data are NaN, in every band by itself.

        Raises:
            DataError: another number of bands; floats, or large integers, where no ``range`` says what is 0 and 1.
        """
        if stored.ndim != 3 or stored.shape[-1] != len(self.names):
            raise DataError(f"{where}: {stored.shape[-1]} bands, but `channels` names {len(self.names)}; name each")
        ends = self.ends(stored.dtype, where)
        count = len(self.names)
        scale, offset, low, high = (np.broadcast_to(x, count) for x in (self.scale, self.offset, *ends))
        out = np.empty((count, *stored.shape[:2]), np.float32)
        for band in range(count):  # one at a time, so that float64 is held of one alone
            number = stored[..., band]
            found = (number.astype(np.float64) * scale[band] + offset[band] - low[band]) / (high[band] - low[band])
            if self.nodata is not None:
                found[number == self.nodata] = np.nan  # a type that cannot hold it has none
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which data sets refuse
                out[band] = found
        return out

    def ends(self, dtype: np.dtype, where: str) -> tuple[np.ndarray, np.ndarray]:
        """The numbers, after scale and offset, that become 0 and 1, of files of a type: each () or (C,) float64.

        Raises:
            DataError: as :meth:`values`.
        """
        if pairs := self._pairs():
            ends = np.asarray(pairs if len(pairs) > 1 else pairs[0], np.float64)
            return ends[..., 0], ends[..., 1]
        if dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"{where}: holds {dtype}, of which nothing says what is black and what is white; state"
                " `channels: {range: [LOW, HIGH]}`"
            )
        scale, offset = np.asarray(self.scale, np.float64), np.asarray(self.offset, np.float64)
        ends_of = offset, offset + scale * np.iinfo(dtype).max
        return np.minimum(*ends_of), np.maximum(*ends_of)

    def _pairs(self) -> tuple[_Ends, ...] | None:
        if self.range is None:
            return None
        return self.range if isinstance(self.range[0], tuple) else (self.range,)


#: The bands of an ordinary picture, 8-bit RGB.
RGB_BANDS = Bands()
