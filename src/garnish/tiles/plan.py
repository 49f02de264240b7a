"""Which windows of a picture are run, and which part of each window's output counts where.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, final

from garnish.errors import OptionError
from garnish.pictures.raster import Window


class Stretch(NamedTuple):
    """The windows of one row or column of windows along one axis, in pixels of the picture.

    From ``start`` to ``stop`` it is run. Its output counts from ``begin`` to ``end``: together with the window before
    up to ``alone``, alone up to ``shared``, and from there together with the window behind.
    """

    start: int
    stop: int
    begin: int
    alone: int
    shared: int
    end: int


@final
@dataclass(frozen=True)
class TilePlan:
    """Windows in rows and columns; each pixel lies in the counted part of one, two or four of them.

    Attributes:
        size: (H, W).
        tile: longest side of a window.
        overlap: pixels that neighbours share at least.
        rows: from top to bottom.
        columns: from left to right.
    """

    size: tuple[int, int]
    tile: int
    overlap: int
    rows: tuple[Stretch, ...]
    columns: tuple[Stretch, ...]

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows) * len(self.columns)

    @property
    def windows(self) -> Iterator[Window]:
        """Every window, row by row."""
        for row in self.rows:
            for column in self.columns:
                yield window_of(row, column)

    def __str__(self) -> str:
        height, width = self.size
        if self.count == 1:
            return f"{width}x{height} in one pass"
        return f"{width}x{height} in {self.count} windows of {self.tile}, overlap {self.overlap}"


def window_of(row: Stretch, column: Stretch) -> Window:
    """The window where a row and a column of windows cross."""
    return Window(row.start, column.start, row.stop - row.start, column.stop - column.start)


def tile_plan(size: tuple[int, int], tile: int, overlap: int, step: int) -> TilePlan:
    """Cover a picture with windows of at most ``tile`` pixels a side, none of which reaches beyond it.

    Windows begin at multiples of ``step``, so that a trunk whose grid has that stride sees the picture on the grid of a
    whole pass. The last of a row is shifted inward, and ends with the picture; it is narrower by less than a step.

    Args:
        size: (H, W) of the picture.
        tile: pixels, at least 1.
        overlap: that neighbouring windows share at least, in pixels, from 0; less than ``tile``.
        step: pixels; ignored where less than a step would be new in each window.

    Raises:
        OptionError: an overlap as wide as the windows.
    """
    if overlap >= tile:
        raise OptionError(f"overlap: {overlap} pixels of windows of {tile}, so none would move on; set less")
    return TilePlan(size, tile, overlap, *(_stretches(side, tile, overlap, step) for side in size))


def _stretches(length: int, tile: int, overlap: int, step: int) -> tuple[Stretch, ...]:
    """The windows along one axis. Neighbours are blended over ``overlap`` pixels in the middle of what they share.

    Where that is more than a window moves on, over as many pixels as it does: so no pixel is blended of three.
    """
    if length <= tile:
        return (Stretch(0, length, 0, 0, length, length),)
    new = tile - overlap
    step = step if step <= new else 1
    new -= new % step
    starts = [*range(0, length - tile, new), -(-(length - tile) // step) * step]
    width = min(overlap, new)
    found: list[Stretch] = []
    begin = alone = 0
    for start, following in pairwise(starts):
        middle = (following + start + tile - width) // 2
        shared = max(alone, middle)  # the last window may begin before the band of the two before it ends
        found.append(Stretch(start, start + tile, begin, alone, shared, shared + width))
        begin, alone = shared, shared + width
    found.append(Stretch(starts[-1], length, begin, alone, length, length))
    return tuple(found)
