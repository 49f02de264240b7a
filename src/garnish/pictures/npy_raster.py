"""``NpyRaster``: an array that ``numpy.save`` wrote, of which a window reads the rows that it touches.

They are read, not mapped: a mapped file that is cut short while it is in use ends the process.
Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import final

import numpy as np

from garnish.errors import DataError, shown
from garnish.files.npy_header import npy_header
from garnish.files.regular import open_regular
from garnish.pictures.array_layout import bands_first, plain_numbers
from garnish.pictures.raster import Raster, RasterFacts, Window
from garnish.pictures.reading import MOST_BYTES, check_shape, checked_window, reading


@final
class NpyRaster(Raster):
    """An array of (H, W), (H, W, C) or, where ``bands`` says so, (C, H, W).

    Args:
        path: the file.
        bands: their number, if it is stated: see :mod:`garnish.pictures.array_layout`.

    Raises:
        DataError: damaged, objects, or a shape that is no picture's.
    """

    def __init__(self, path: Path, bands: int | None = None) -> None:
        self._path = path
        with reading(path):
            self._stream = open_regular(path, MOST_BYTES)
        try:
            with reading(path):
                self._open(bands)
        except BaseException:
            self._stream.close()
            raise

    def _open(self, bands: int | None) -> None:
        shape, by_columns, self._stored = npy_header(self._stream)
        self._start = self._stream.tell()
        dtype = plain_numbers(self._path, self._stored)
        self._first = bands_first(self._path, shape, bands)
        if by_columns and len(shape) > 1:
            raise DataError(f"{self._path}: is stored by columns (Fortran order); save numpy.ascontiguousarray of it")
        height, width, count = (*shape[1:], shape[0]) if self._first else (*shape, 1)[:3]
        held = os.fstat(self._stream.fileno()).st_size - self._start
        needed = math.prod(shape) * self._stored.itemsize
        if held < needed:
            raise ValueError(f"{held:,} bytes, where {shown(shape)} needs {needed:,}")
        check_shape(self._path, (height, width), count, held)
        layout = "(C, H, W)" if self._first else "(H, W, C)" if len(shape) == 3 else "(H, W)"
        notes = {"format": "npy", "layout": layout}
        self.facts = RasterFacts(
            size=(height, width), dtype=dtype.name, bands=(None,) * count, windows=True, notes=notes
        )

    def read(self, window: Window | None = None) -> np.ndarray:
        """(h, w, C) numbers as the file holds them; None: all of it."""
        size, bands, dtype = self.facts.size, len(self.facts.bands), np.dtype(self.facts.dtype)
        window = checked_window(self._path, window, size, bands, dtype)
        found = np.empty((window.height, window.width, bands), dtype)
        columns = slice(window.left, window.left + window.width)
        with reading(self._path):
            for plane in range(bands if self._first else 1):
                depth = 1 if self._first else bands
                target = found[..., plane : plane + 1] if self._first else found
                width = size[1] * depth
                step = max(2**20 // (width * dtype.itemsize), 1)
                for row in range(0, window.height, step):
                    some = min(step, window.height - row)
                    place = (plane * size[0] + window.top + row) * width
                    rows = self._numbers(place, some * width).reshape(some, size[1], depth)
                    target[row : row + some] = rows[:, columns]
        return found

    def close(self) -> None:
        """Close the file; may be called again."""
        self._stream.close()

    def _numbers(self, place: int, count: int) -> np.ndarray:
        self._stream.seek(self._start + place * self._stored.itemsize)
        data = self._stream.read(count * self._stored.itemsize)
        if len(data) < count * self._stored.itemsize:
            raise ValueError("it was cut off while it was read")
        return np.frombuffer(data, self._stored)
