"""One number a pixel → metres.

Shape letters: H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from garnish.checking.bounds import Metres
from garnish.decodings.decoding import Decoding, one_channel
from garnish.drawing.painting import paint_distances
from garnish.errors import OptionError

#: Softplus of this is 1, so that an output of 0 means a quarter of the range.
SOFTPLUS_UNIT = math.log(math.e - 1)
#: Largest depth that a 16-bit file in millimetres can hold.
_MAX_FILE_METRES = 65.535


@final
@dataclass(frozen=True, kw_only=True)
class SoftplusDepth(Decoding):
    """Metres = ``max_metres/4 · softplus(z + ln(e − 1))``, clamped to the range.

    Attributes:
        max_metres: largest depth; it sets the colour scale.
        min_metres: smallest depth.
    """

    channels: ClassVar[int] = 1
    nothing: ClassVar[float | None] = 0
    nothing_stored: ClassVar[float | None] = 0
    unit: ClassVar[str | None] = "m"

    max_metres: Metres = 10.0
    min_metres: Metres = 1e-3

    def __post_init__(self) -> None:
        if not self.min_metres < self.max_metres:
            raise OptionError(
                f"SoftplusDepth.max_metres: {self.max_metres:g} is not above min_metres {self.min_metres:g}; set min <"
                " max"
            )

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """(1, H, W) → metres (H, W) float32 in [min_metres, max_metres]."""
        softplus = np.logaddexp(np.float32(0), raw[0].astype(np.float32) + np.float32(SOFTPLUS_UNIT))
        with np.errstate(over="ignore"):  # what is beyond any float is beyond the range
            metres = np.float32(self.max_metres / 4) * softplus
        clipped: np.ndarray = np.clip(metres, np.float32(self.min_metres), np.float32(self.max_metres))
        return clipped

    def values(self, raw: np.ndarray) -> np.ndarray:
        """(1, H, W) → metres (1, H, W) float32.

        Their mean is taken, not that of their logarithms: RMSE is measured in metres, and where two windows see a
        slope alike it stays the slope.
        """
        return self.decode(raw)[None]

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """(1, H, W) metres → (H, W), clamped to the range, which a mean leaves by rounding alone."""
        clipped: np.ndarray = np.clip(values[0], np.float32(self.min_metres), np.float32(self.max_metres))
        return clipped

    def raw_of(self, values: np.ndarray) -> np.ndarray:
        """(1, H, W) metres → the z of which they are the softplus: ln(e^s − 1) − ln(e − 1), s = metres·4/max_metres."""
        scaled = values.astype(np.float64) * (4 / self.max_metres)
        found: np.ndarray = (scaled + np.log(-np.expm1(-scaled)) - SOFTPLUS_UNIT).astype(np.float32)
        return found

    def paint(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W) or (1, H, W) metres → (H, W, 3): near is yellow, ``max_metres`` dark violet; black without a label."""
        return paint_distances(one_channel(decoded), self.min_metres, self.max_metres)

    @property
    def stored_scale(self) -> tuple[float, float] | None:
        """From millimetres to metres."""
        return None if self.max_metres > _MAX_FILE_METRES else (0.001, 0.0)

    def stored(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W) metres → millimetres uint16, 0 = none; where ``max_metres`` > 65.535, float32 metres.

        Its file is a PNG of 16 bits, or ``.npy``.
        """
        metres = one_channel(decoded)
        valid = (metres > 0) & np.isfinite(metres)
        values = np.where(valid, metres, 0).astype(np.float64)
        if self.max_metres > _MAX_FILE_METRES:
            return values.astype(np.float32)
        millimetres: np.ndarray = np.where(valid, np.clip(np.rint(values * 1000), 1, 65535), 0).astype(np.uint16)
        return millimetres

    def cover(self, decoded: np.ndarray) -> np.ndarray:
        """1 where there is a distance of the range, 0 elsewhere."""
        metres = one_channel(decoded)
        return ((metres >= self.min_metres) & (metres <= self.max_metres)).astype(np.float32)

    def scale(self) -> tuple[str, str]:
        """The ends of the colour scale, from its first colour to its last."""
        return f"{self.max_metres:g} m", "0 m"
