"""One number a pixel → depth without a unit, known up to its scale and shift.

Shape letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from garnish.decodings.decoding import Decoding, one_channel
from garnish.decodings.map_file import MapFile
from garnish.drawing.colours import NOTHING, scale_colours
from garnish.drawing.map_files import PNG_LEVEL, picture_bytes


@final
@dataclass(frozen=True, kw_only=True)
class UnitlessDepth(Decoding):
    """The raw output itself: its order and the shares of its differences mean something, its zero and its size do not.

    Pictures and files stretch each map from its smallest to its largest number, so two of them cannot be compared.

    Attributes:
        larger: what larger numbers mean: "nearer", as in disparity, or "farther".
    """

    channels: ClassVar[int] = 1
    same_scale: ClassVar[bool] = False
    nothing: ClassVar[float | None] = np.nan

    larger: Literal["nearer", "farther"]

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """(1, H, W) → (H, W) float32, no unit."""
        values: np.ndarray = raw[0].astype(np.float32)
        return values

    def paint(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W) or (1, H, W) → (H, W, 3): the nearest is yellow, the farthest dark violet; black without a number."""
        share, known, _ = _stretched(decoded)
        painted = scale_colours(share if self.larger == "nearer" else 1 - share)
        painted[~known] = NOTHING
        return painted

    def scale(self) -> tuple[str, str]:
        """The ends of the colour scale, from its first colour to its last."""
        return "farthest", "nearest"

    def file(self, decoded: np.ndarray, level: int = PNG_LEVEL) -> MapFile:
        """A PNG of 16 bits: 1 the smallest number of this map and 65535 its largest, 0 = none.

        The file's text (``Description``) says so, with both numbers, by which the map can be had back.
        """
        share, known, (low, high) = _stretched(decoded)
        levels = np.where(known, 1 + np.rint(share * 65534), 0).astype(np.uint16)
        told = PngInfo()
        told.add_text(
            "Description",
            f"depth without a unit, larger is {self.larger}; 0: none; 1 to 65535: {low!r} to {high!r} of this picture",
        )
        data = picture_bytes(Image.fromarray(levels), "PNG", level, pnginfo=told)
        step = (high - low) / 65534
        return MapFile(data, ".png", (step, low - step), 0)


def _stretched(decoded: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """(H, W) float64 shares of the way from the smallest to the largest number (0.5 where all are equal); where there
    is a number; both ends.
    """
    values = one_channel(decoded).astype(np.float64)  # in which differences of float32 do not overflow
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape), known, (0.0, 0.0)
    low, high = float(values[known].min()), float(values[known].max())
    span = high - low
    share = np.where(known, values - low, 0) / span if span else np.full(values.shape, 0.5)
    return share, known, (low, high)
