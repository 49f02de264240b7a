"""Brush masks of Label Studio: the bits of a run-length code of RGBA, four numbers a pixel.

The stream is that of the package rle-pack, most significant bit first. 32 bits hold the count of numbers, 5 the bits of
a number less one, four times 4 the bits of a run's length less one. Then runs follow until all numbers are there: one
bit says whether one number is repeated, two which of the four sizes the length has, then come the length less one, and
the number, or as many numbers.

Shape letters: H W pixels.
"""

from __future__ import annotations

import numpy as np

from garnish.errors import DataError

#: Bits before the first run, and of a number.
_HEAD, _NUMBER = 53, 8


def alpha_of_bits(data: bytes, size: tuple[int, int], where: str) -> np.ndarray:
    """(H, W) uint8 opacity of a brush mask.

    Args:
        data: the list ``rle`` as bytes.
        size: (H, W) of the picture, bounded by the caller.
        where: file and region, for messages.

    Raises:
        DataError: a stream that ends early, of another picture's size, or of numbers that are not 8 bits.
    """
    early = f"{where}: the brush mask ends early; export the file again"
    if 8 * len(data) < _HEAD:
        raise DataError(early)
    head = int.from_bytes(data[:7], "big")
    count, bits = head >> 24, (head >> 19 & 31) + 1
    sizes = [(head >> shift & 15) + 1 for shift in (15, 11, 7, 3)]
    if count != 4 * size[0] * size[1] or bits != _NUMBER:
        raise DataError(
            f"{where}: a brush mask of {count} numbers of {bits} bits for {size[1]}x{size[0]} pixels, which have"
            f" {4 * size[0] * size[1]} of {_NUMBER}; export the file again"
        )
    alpha = bytearray(size[0] * size[1])
    padded = data + bytes(8)  # so that eight bytes can be taken anywhere
    at, place, last = _HEAD, 0, 8 * len(data)
    while place < count and at < last:
        # three bits, a length of at most sixteen and the first number lie within eight bytes
        window = int.from_bytes(padded[at >> 3 : (at >> 3) + 8], "big")
        left = 61 - (at & 7)
        kind = window >> left & 7
        length = sizes[kind & 3]
        left -= length
        end = place + 1 + (window >> left & (1 << length) - 1)
        at += 3 + length
        # opacity is the last of four numbers: pixel p has it at 4p + 3
        first, stop = place // 4, min(end, count) // 4
        if kind & 4:
            if first < stop:
                alpha[first:stop] = bytes([window >> left - _NUMBER & 255]) * (stop - first)
            at += _NUMBER
        else:
            after = at + _NUMBER * (end - place)
            if after <= last and end <= count:
                held = int.from_bytes(padded[at >> 3 : (after + 7) >> 3], "big") >> (-after & 7)
                numbers = (held & (1 << after - at) - 1).to_bytes(end - place, "big")
                alpha[first:stop] = numbers[3 - place % 4 :: 4]
            at = after
        if end > count:
            raise DataError(f"{where}: runs of the brush mask are longer than its picture; export the file again")
        place = end
    if place < count or at > last:
        raise DataError(early)
    return np.frombuffer(alpha, np.uint8).reshape(size)
