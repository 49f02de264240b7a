"""Masks in runs, row by row, of which the first is of zeros (COCO's go column by column).

Shape letters: h w pixels of the mask's box.
"""

from __future__ import annotations

import numpy as np

from garnish.errors import DataError, shown


def mask_of_rows(text: str, size: tuple[int, int], where: str) -> np.ndarray:
    """(h, w) bool of lengths of runs that zeros and ones have in turn.

    Args:
        text: the lengths, with commas between; the first is of zeros and may be 0.
        size: (h, w), bounded by the caller.
        where: file and object, for messages.

    Raises:
        DataError: no whole numbers, or runs that are not as long as the box has pixels.
    """
    try:
        runs = np.array([int(length) for length in text.split(",")], np.int64)
    except (ValueError, OverflowError):
        raise DataError(f"{where}: rle {shown(text)} is no list of whole numbers; export the file again") from None
    pixels = size[0] * size[1]
    # every length is compared by itself: a sum of many could come round to the right one
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise DataError(
            f"{where}: runs of the mask do not add up to the {size[1]}x{size[0]} pixels of its box; export the file"
            " again"
        )
    mask: np.ndarray = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)
    return mask
