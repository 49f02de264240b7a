"""Where a picture that is read by windows has no data: noted as windows are read, asked for as rows are finished.

Shape letters: C bands, H W pixels of the picture, h w of a window.
"""

from __future__ import annotations

from typing import final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.pictures.given_picture import empty_pixels
from garnish.pictures.raster import Window
from garnish.tiles.passes import Reader


@final
class EmptyRows:
    """A reader of windows that notes where all bands are NaN; only rows that are not yet finished are held.

    Args:
        read: gives the values of a window, (C, h, w).
        width: W.
    """

    def __init__(self, read: Reader, width: int) -> None:
        self._read, self._first = read, 0
        self._rows = np.zeros((0, width), bool)

    def __call__(self, window: Window) -> np.ndarray:
        """The window's values."""
        values = self._read(window)
        top, left, height, width = window
        if (empty := empty_pixels(values)) is not None:
            lacking = top + height - self._first - len(self._rows)
            if lacking > 0:
                self._rows = np.concatenate([self._rows, np.zeros((lacking, self._rows.shape[1]), bool)])
            kept = max(self._first - top, 0)  # rows of the window that are finished already
            start = top + kept - self._first
            self._rows[start : start + height - kept, left : left + width] |= empty[kept:]
        return values

    def of(self, first: int, count: int) -> np.ndarray | None:
        """(count, W) bool of the rows from ``first`` on; None: there is data everywhere."""
        found = np.zeros((count, self._rows.shape[1]), bool)
        held = self._rows[first - self._first :][:count]
        found[: len(held)] = held
        return found if found.any() else None

    def finished(self, rows: int) -> None:
        """The first ``rows`` of the picture are written."""
        self._rows = self._rows[rows - self._first :]
        self._first = rows


def stored_nothing(decoding: Decoding) -> np.ndarray:
    """What a file holds of a pixel of which nothing is known: (values of a pixel,)."""
    decoded = decoding.decode(np.zeros((decoding.channels, 1, 1), np.float32))
    held = decoding.stored(decoding.blanked(decoded, np.ones((1, 1), bool)))
    return held.reshape(-1)
