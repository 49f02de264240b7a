"""One logit a pixel → the probability of yes.

Shape letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import numpy as np

from garnish.checking.plain_data import integers
from garnish.decodings.decoding import Decoding, one_channel
from garnish.drawing.colours import HIGHLIGHT
from garnish.drawing.painting import eight_bits, paint_shares

#: Pixels of targets without a label.
_NONE = 255
_Level = Annotated[int, integers(0, 255)]


@final
@dataclass(frozen=True, kw_only=True)
class Probabilities(Decoding):
    """The sigmoid of a logit.

    Attributes:
        dark: yes is painted black on white; else white on black.
        none_colour: RGB of pixels of a target without a label.
    """

    channels: ClassVar[int] = 1
    are_shares: ClassVar[bool] = True
    nothing: ClassVar[float | None] = np.nan
    unit: ClassVar[str | None] = "probability"

    dark: bool = False
    none_colour: tuple[_Level, _Level, _Level] = (128, 128, 128)

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """(1, H, W) → probabilities (H, W) float32 in [0, 1]."""
        logits = raw[0].astype(np.float32)
        small = np.exp(-np.abs(logits))  # in [0, 1], so that nothing overflows
        shares: np.ndarray = np.where(logits < 0, small, np.float32(1)) / (1 + small)
        return shares

    def values(self, raw: np.ndarray) -> np.ndarray:
        """(1, H, W) → probabilities (1, H, W) float32, of which the mean is one, too.

        The maximum of two passes would keep the false alarms of each, which are most at the borders of its window, and
        thresholds that were chosen for one pass would mean something else.
        """
        return self.decode(raw)[None]

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """(1, H, W) → (H, W) float32 in [0, 1]."""
        shares: np.ndarray = np.clip(values[0], 0, 1)
        return shares

    def raw_of(self, values: np.ndarray) -> np.ndarray:
        """(1, H, W) probabilities → logits; 0 and 1 count as the nearest numbers inside, 1e-38 and 1 − 6e-8."""
        kinds = np.finfo(np.float32)
        shares = np.clip(values, kinds.tiny, 1 - kinds.epsneg)
        logits: np.ndarray = np.log(shares) - np.log1p(-shares)
        return logits

    def paint(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W) or (1, H, W) → (H, W, 3) grey; ``none_colour`` where there is no label."""
        return paint_shares(one_channel(decoded), none=_NONE, none_colour=self.none_colour, dark=self.dark)

    @property
    def stored_scale(self) -> tuple[float, float]:
        """From 0 … 255 to 0 … 1."""
        return 1 / 255, 0.0

    def stored(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W) → (H, W) uint8: probability · 255; its file is a grey PNG."""
        return eight_bits(one_channel(decoded))

    def class_ids(self, decoded: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """0, called yes, where the probability is at least 0.5; 255 elsewhere."""
        return np.where(one_channel(decoded) >= 0.5, 0, _NONE).astype(np.uint8), ("yes",)

    def cover(self, decoded: np.ndarray) -> np.ndarray:
        """The probability itself; 0 where there is no label."""
        shares = one_channel(decoded)
        return np.where((shares >= 0) & (shares <= 1), shares, np.float32(0))

    def over_colour(self, decoded: np.ndarray) -> np.ndarray:
        """One colour, which no grey of :meth:`paint` would be told from on a picture."""
        return np.broadcast_to(np.array(HIGHLIGHT, np.uint8), (*one_channel(decoded).shape, 3))
