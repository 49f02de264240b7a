"""Painting maps as (H, W, 3) uint8 RGB: classes, distances, unit vectors, probabilities.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from garnish.drawing.colours import NOTHING, scale_colours

#: Vectors shorter than this count as the zero vector, which means "no vector".
SHORTEST_VECTOR = 1e-3

RGB = tuple[int, int, int]
Painted = NDArray[np.uint8]
Floats = NDArray[np.floating]


def paint_classes(ids: NDArray[np.integer], colours: Sequence[RGB]) -> Painted:
    """(H, W) class ids, any integers → the colour of each; black for ids without a colour."""
    table = np.array([*colours, NOTHING], np.uint8)
    painted: Painted = table[np.where((ids >= 0) & (ids < len(colours)), ids, len(colours))]
    return painted


def paint_distances(metres: Floats, nearest: float, farthest: float) -> Painted:
    """(H, W) metres → yellow for near, dark violet at ``farthest``; black outside of ``nearest`` to ``farthest``."""
    valid = (metres >= nearest) & (metres <= farthest)
    painted = scale_colours(1 - np.where(valid, metres, np.float32(0)) / np.float32(farthest))
    painted[~valid] = NOTHING
    return painted


def paint_vectors(vectors: Floats) -> Painted:
    """(3, H, W) unit vectors n → (n + 1)/2 as RGB; black where the vector is zero or not finite."""
    painted = vectors_as_rgb(vectors)
    length = np.linalg.norm(vectors, axis=0)
    painted[~(np.isfinite(length) & (length > SHORTEST_VECTOR))] = NOTHING
    return painted


def vectors_as_rgb(vectors: Floats) -> Painted:
    """(3, H, W) vectors n in [-1, 1] → (n + 1)/2 · 255, rounded; the zero vector is mid-grey."""
    return eight_bits((vectors + 1) / 2).transpose(1, 2, 0)


def paint_shares(shares: Floats, *, none: float = np.nan, none_colour: RGB, dark: bool = False) -> Painted:
    """(H, W) values in [0, 1] → grey; 1 is white.

    Args:
        shares: probabilities, or targets of 0 and 1.
        none: the value that means "no label"; so does NaN.
        none_colour: the colour of pixels without a label.
        dark: 1 is black instead.
    """
    grey = eight_bits(1 - np.clip(shares, 0, 1) if dark else shares)
    painted = np.repeat(grey[..., None], 3, axis=-1)
    painted[(shares == none) | np.isnan(shares)] = none_colour
    return painted


def eight_bits(shares: Floats) -> NDArray[np.uint8]:
    """Numbers in [0, 1] → 0 to 255 as uint8, clipped and rounded; NaN is 0."""
    scaled: Painted = np.rint(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * np.float32(255)).astype(np.uint8)
    return scaled
