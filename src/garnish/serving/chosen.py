"""Of classes also how probable the one chosen is: both of a pixel come from the same mean of windows.

Shape letters: K classes, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from garnish.decodings.decoding import Decoding


def has_confidence(decoding: Decoding) -> bool:
    """Whether a decoding chooses one of several classes by their probabilities."""
    return decoding.are_shares and decoding.channels > 1


@final
@dataclass(frozen=True)
class WithConfidence:
    """Finished pixels are (2, H, W) float32: the decoded map, and the probability of the class chosen."""

    decoding: Decoding

    def of_raw(self, raw: np.ndarray) -> np.ndarray:
        """Of raw outputs (K, H, W)."""
        return np.stack([self.decoding.decode(raw), self.decoding.values(raw).max(0)], dtype=np.float32)

    def of_mean(self, values: np.ndarray) -> np.ndarray:
        """Of mean probabilities (K, H, W)."""
        return np.stack([self.decoding.of_values(values), values.max(0)], dtype=np.float32)


def parted(found: np.ndarray, empty: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What :class:`WithConfidence` gave → ids (H, W) uint8, and (H, W) float32 in [0, 1].

    Args:
        found: (2, H, W).
        empty: (H, W) bool, where the picture has no data, so that nothing is chosen, with 0; None: nowhere.
    """
    shares = np.clip(found[1], 0, 1)
    return found[0].astype(np.uint8), shares if empty is None else np.where(empty, np.float32(0), shares)
