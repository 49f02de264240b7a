"""EXIF orientations: how to turn a stored picture upright, and directions in it with it.

Numbers 1 to 8 as in the tag ``Orientation`` of EXIF 2.32 (JEITA CP-3451, 4.6.4.A): 1 upright, 3 half a turn, 6 and 8
quarter turns, the others mirrored. Shape letters: H W pixels.
"""

from __future__ import annotations

import numpy as np

#: Rows of a matrix from directions (x right, y down) in a picture to those in the transformed one.
Matrix = tuple[tuple[float, float], tuple[float, float]]

#: orientation → (swap rows and columns, then reverse columns, then reverse rows)
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}

#: orientation → the one that undoes it
UNDONE_BY = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def swaps_sides(orientation: int) -> bool:
    """Whether turning upright swaps width and height."""
    return _STEPS[orientation][0]


def turn(pixels: np.ndarray, orientation: int, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Turn pixels as stored upright.

    Args:
        pixels: an array with rows and columns among its axes.
        orientation: 1 to 8.
        axes: which axes are rows and columns.
    """
    rows, columns = axes
    swap, across, down = _STEPS[orientation]
    if swap:
        pixels = pixels.swapaxes(rows, columns)
    if across:
        pixels = np.flip(pixels, columns)
    if down:
        pixels = np.flip(pixels, rows)
    whole = np.ascontiguousarray(pixels)  # which leaves a single row or column running backwards, as torch takes none
    return whole if min(whole.strides) >= 0 else whole.copy()


def axes_of(orientation: int) -> Matrix:
    """The matrix from directions (x right, y down) in a stored picture to those in the upright one.

    The camera rolls with the picture; a mirrored picture shows a mirrored scene.
    """
    swap, across, down = _STEPS[orientation]
    x, y = -1.0 if across else 1.0, -1.0 if down else 1.0
    return ((0.0, x), (y, 0.0)) if swap else ((x, 0.0), (0.0, y))
