"""COCO's run lengths: masks as numbers of pixels that are outside, inside, outside, …, column by column.

Shape letters: H W pixels of the picture, w columns of a box in it, n runs.
"""

from __future__ import annotations

import numpy as np

#: Most characters of one number, of five bits each.
_MOST_CHARACTERS = 7


def unpacked_counts(text: bytes) -> np.ndarray:
    """The run lengths of COCO's compressed text, (n,) int64.

    A number is written five bits a character, the lowest first, as 48 + bits; 32 says that another character follows,
    and 16 of the last one is the sign. From the fourth on, what is written is the difference to the last but one.

    Raises:
        ValueError: not such a text; a reason without the file.
    """
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if len(digits) and (digits.min() < 0 or digits.max() > 63):
        raise ValueError("its run lengths hold a character that they cannot have")
    last = np.flatnonzero(digits & 32 == 0)
    if not len(last):
        if len(digits):
            raise ValueError("its run lengths end within a number")
        return np.zeros(0, np.int64)
    if last[-1] != len(digits) - 1:
        raise ValueError("its run lengths end within a number")
    starts = np.concatenate([[0], last[:-1] + 1])
    lengths = last + 1 - starts
    if lengths.max() > _MOST_CHARACTERS:
        raise ValueError(f"its run lengths hold a number of {int(lengths.max())} characters")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((digits & 31) << (5 * place), starts)
    values -= np.where(digits[last] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def mask_of_runs(counts: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """The mask of run lengths that start with what is outside.

    Args:
        counts: (n,) int64.
        size: (H, W), which they fill.

    Returns:
        (H, w) bool of the columns that the object touches, and the first of them; w is 0 for an empty one.

    Raises:
        ValueError: negative lengths, or others in sum than the picture has pixels; a reason without the file.
    """
    height, width = size
    if len(counts) and (counts.min() < 0 or counts.max() > height * width):
        wrong = int(counts.min()) if counts.min() < 0 else int(counts.max())
        raise ValueError(f"a run of {wrong} pixels in a picture of {width}x{height}")
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(counts) else 0
    if total != height * width:
        raise ValueError(f"its runs have {total} pixels, {width}x{height} are {height * width}")
    starts, ends = ends[0::2][: len(ends) // 2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return np.zeros((height, 0), bool), 0
    left, right = int(starts[0]) // height, -(-int(ends[-1]) // height)
    bounds = np.stack([starts, ends], 1).reshape(-1) - left * height
    lengths = np.diff(bounds, prepend=0, append=(right - left) * height)
    inside = np.zeros(len(lengths), bool)
    inside[1::2] = True
    return np.repeat(inside, lengths).reshape(right - left, height).T, left
