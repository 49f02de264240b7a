"""Histogram: how often values of a target occur, in fixed bins, so that those of pictures can be added.

Shape letters: n bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np


@final
@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts in bins.

    Attributes:
        edges: (n + 1,) float64, ascending.
        counts: (n,) int64; a bin holds its lower edge, the last bin both.
        below: values below the first edge.
        above: values above the last edge.
        unit: of the edges: "m", or nothing.
        logarithmic: whether the edges are evenly spaced in their logarithm.
    """

    edges: np.ndarray
    counts: np.ndarray
    below: int = 0
    above: int = 0
    unit: str = ""
    logarithmic: bool = False

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            self.edges,
            self.counts + other.counts,
            self.below + other.below,
            self.above + other.above,
            self.unit,
            self.logarithmic,
        )


def histogram_of(values: np.ndarray, edges: np.ndarray, unit: str = "", *, logarithmic: bool = False) -> Histogram:
    """Count finite values.

    Args:
        values: of any shape.
        edges: as in :class:`Histogram`.
        unit: likewise.
        logarithmic: likewise.
    """
    flat = np.asarray(values, np.float64).ravel()
    places = np.searchsorted(edges, flat, side="right") - 1
    places[flat == edges[-1]] = len(edges) - 2
    inside = (places >= 0) & (places < len(edges) - 1)
    counts = np.bincount(places[inside], minlength=len(edges) - 1)
    return Histogram(edges, counts, int((places < 0).sum()), int((places >= len(edges) - 1).sum()), unit, logarithmic)
