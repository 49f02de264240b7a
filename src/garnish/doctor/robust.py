"""Statistics that a few spoiled files among many do not move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Standard deviation of a normal distribution over its median absolute deviation.
_NORMAL = 1.4826


def centre_and_spread(values: Sequence[float] | np.ndarray, least: float = 0.0) -> tuple[float, float]:
    """Median, and the standard deviation that the median absolute deviation stands for.

    Args:
        values: at least one, finite.
        least: the spread is not below this.
    """
    numbers = np.asarray(values, np.float64)
    middle = float(np.median(numbers))
    return middle, max(_NORMAL * float(np.median(np.abs(numbers - middle))), least)
