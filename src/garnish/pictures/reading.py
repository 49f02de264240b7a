"""What every kind of picture file shares: errors of one line, and bounds on what a header may ask for.

Shape letters: H W pixels of the file, h w of a window, C bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from garnish.errors import DataError
from garnish.files.pictures import FREE_PIXELS, PIXELS_PER_BYTE, damaged
from garnish.pictures.bands import MOST_BANDS
from garnish.pictures.raster import Window

#: Largest file that is read by windows, in bytes.
MOST_BYTES = 2**42
#: Longest side of a picture that is read by windows, in pixels.
LONGEST_SIDE = 2**20
#: Most bytes that one call reads.
MOST_READ = 2**31


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a ``with`` block raises into a DataError of one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; restore it or take it off the list of pictures") from None
    except ImportError:
        raise
    except DataError:
        raise
    except Exception as error:  # damaged files make libraries raise anything
        raise damaged(path, error) from error


def check_shape(path: Path, size: tuple[int, int], bands: int, num_bytes: int) -> None:
    """Raise DataError for a picture that no file of so many bytes is trusted to hold, before memory is taken for it."""
    height, width = size
    if min(height, width, bands) < 1:
        raise DataError(f"{path}: is {width}x{height} with {bands} bands, so it has no pixels; replace the file")
    if max(height, width) > LONGEST_SIDE:
        raise DataError(
            f"{path}: {width}x{height} has a side of more than {LONGEST_SIDE:,} pixels; cut it into smaller pictures"
        )
    if bands > MOST_BANDS:
        raise DataError(f"{path}: holds {bands:,} bands, more than {MOST_BANDS}; save those that are needed")
    numbers = height * width * bands
    if numbers > max(FREE_PIXELS, PIXELS_PER_BYTE * num_bytes):
        raise DataError(
            f"{path}: {width}x{height} with {bands} bands are {numbers / 1e6:.0f} million numbers in {num_bytes:,}"
            f" bytes, which is not trusted beyond {FREE_PIXELS / 1e6:.0f}; cut it into smaller pictures"
        )


def checked_window(path: Path, window: Window | None, size: tuple[int, int], bands: int, dtype: np.dtype) -> Window:
    """The window itself, all of the picture for None.

    Raises:
        DataError: it reaches outside, is empty, or asks for more than :data:`MOST_READ`.
    """
    top, left, height, width = window = Window(0, 0, *size) if window is None else window
    if min(top, left) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
        raise DataError(
            f"{path}: {width}x{height} pixels at column {left} and row {top} are no part of its {size[1]}x{size[0]}"
        )
    if height * width * bands * dtype.itemsize > MOST_READ:
        raise DataError(
            f"{path}: {width}x{height} pixels of {bands} bands are more than {MOST_READ / 2**30:.0f} GB at once;"
            " read it by windows"
        )
    return window
