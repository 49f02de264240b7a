"""Vectors of any length → unit vectors.

Shape letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.drawing.painting import SHORTEST_VECTOR, paint_vectors, vectors_as_rgb


@final
@dataclass(frozen=True, kw_only=True)
class Directions(Decoding):
    """The same directions with length 1; vectors shorter than 1e-3 stay shorter than 1."""

    channels: ClassVar[int] = 3  # x, y, z
    nothing: ClassVar[float | None] = 0  # no direction
    axes: ClassVar[tuple[str, ...]] = ("right", "down", "forward")

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """(3, H, W) → unit vectors (3, H, W) float32."""
        vectors = raw.astype(np.float32)
        unit: np.ndarray = vectors / np.maximum(_lengths(vectors), np.float32(SHORTEST_VECTOR))
        return unit

    def values(self, raw: np.ndarray) -> np.ndarray:
        """(3, H, W) → unit vectors (3, H, W) float32; those shorter than 1e-3 stay so, and weigh next to nothing."""
        vectors = raw.astype(np.float32)
        lengths = _lengths(vectors)
        unit: np.ndarray = vectors / np.where(lengths < np.float32(SHORTEST_VECTOR), np.float32(1), lengths)
        return unit

    def mirrored(self, values: np.ndarray) -> np.ndarray:
        """Rows turned round, and x, which points right, negated."""
        return values[..., ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]

    def paint(self, decoded: np.ndarray) -> np.ndarray:
        """(3, H, W) → (H, W, 3): (n + 1)/2 as RGB; black where there is no vector."""
        return paint_vectors(decoded.astype(np.float32))

    @property
    def stored_scale(self) -> tuple[float, float]:
        """From 0 … 255 to -1 … 1."""
        return 2 / 255, -1.0

    def stored(self, decoded: np.ndarray) -> np.ndarray:
        """(3, H, W) → (H, W, 3) uint8: (n + 1)/2 · 255; its file is a PNG."""
        return vectors_as_rgb(decoded.astype(np.float32))

    def cover(self, decoded: np.ndarray) -> np.ndarray:
        """1 where there is a vector, 0 elsewhere."""
        cover: np.ndarray = (np.linalg.norm(decoded.astype(np.float32), axis=0) > SHORTEST_VECTOR).astype(np.float32)
        return cover


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """(H, W) float32; of what is too long to be measured infinity, which makes it the zero vector."""
    with np.errstate(over="ignore"):
        lengths: np.ndarray = np.sqrt((vectors * vectors).sum(0))
    return lengths
