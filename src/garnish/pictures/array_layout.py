"""Which axes of a stored array are rows, columns and bands.

``(H, W)`` and ``(H, W, C)`` are read. ``(C, H, W)``, as torch has it, has the same rank, and no rule of sizes tells the
two apart for certain, so none is tried in silence: the number of bands that a data description states decides. Where it
states none, the last axis is the bands if it is not the longer one of the first and last; else the array is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from garnish.errors import DataError, one_line, shown


def bands_first(path: Path, shape: tuple[int, ...], bands: int | None) -> bool:
    """Whether an array of two or three axes is (C, H, W).

    Args:
        path: for messages.
        shape: of the array.
        bands: their number, if it is stated.

    Raises:
        DataError: another number of axes, or nothing says which axis is the bands.
    """
    if len(shape) not in (2, 3):
        raise DataError(f"{path}: an array of shape {shown(shape)}; save it as (H, W) or (H, W, C)")
    if len(shape) == 2 or shape[2] == bands:
        return False
    if shape[0] == bands:
        return True
    if shape[0] < shape[2]:
        raise DataError(
            f"{path}: an array of shape {shown(shape)}, which may be (C, H, W); state as many `channels` as it has,"
            " or save it as (H, W, C)"
        )
    return False


def plain_numbers(path: Path, dtype: np.dtype) -> np.dtype:
    """The dtype in the machine's byte order; truth values are read as uint8.

    Raises:
        DataError: anything but whole numbers, floats and truth values of at most 64 bits.
    """
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        kind = one_line(str(dtype), 60)
        raise DataError(f"{path}: holds {kind}, which are no plain numbers; save whole numbers or floats")
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
