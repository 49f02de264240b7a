"""The header of NumPy's ``.npy`` format, read without trust: nothing is unpickled, and only literals are evaluated."""

from __future__ import annotations

import tokenize
from typing import BinaryIO

import numpy as np

from garnish.errors import shown


def npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first index is the fastest, and dtype; the stream is at the first number then.

    Raises:
        ValueError, SyntaxError, TypeError, RecursionError, MemoryError: a header that numpy cannot read.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format, which is not for plain numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, dtype = read(stream)
    except (tokenize.TokenError, AttributeError, KeyError, IndexError) as error:  # seen with garbled headers
        raise ValueError(f"its header is no literal: {error}") from error
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise ValueError(f"a shape of {shown(shape)}")
    return shape, by_columns, dtype
