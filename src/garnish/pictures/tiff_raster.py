"""``TiffRaster``: a TIFF, BigTIFF or GeoTIFF of any bands, of which a window decodes the tiles that it touches.

Shape letters: H W pixels of the file, h w of a window, C bands, S samples per pixel of a page.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import final

import numpy as np

from garnish.errors import DataError, MissingExtraError
from garnish.files.orientation import swaps_sides, turn
from garnish.files.regular import open_regular
from garnish.pictures.bands import MOST_BANDS
from garnish.pictures.raster import Raster, Window
from garnish.pictures.reading import MOST_BYTES, check_shape, checked_window, reading
from garnish.pictures.tiff_directory import TiffDirectory, directories
from garnish.pictures.tiff_facts import tiff_facts
from garnish.pictures.tiff_page import NONE, TiffPage, Unread, tiff_page
from garnish.pictures.tiff_tiles import check_codecs, decoded_tile

_SUBFILE, _SMALLER, _MASK = 254, 0b1, 0b100
#: Bytes of decoded tiles that are kept, which neighbouring windows share; one is kept of any size.
_KEPT = 2**25
#: Bytes of a piece into which strips are cut that are not compressed, since most writers make one of a whole picture.
_PIECE = 2**20


@final
class TiffRaster(Raster):
    """A TIFF of one page, or of pages of one band and one size, which are its bands.

    Smaller copies of a page are left out; so are masks, which is noted.

    Raises:
        DataError: damaged, or a kind of TIFF that is not read.
        MissingExtraError: a compression that takes a library which is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tiles: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._kept = 0
        with reading(path):
            self._stream = open_regular(path, MOST_BYTES)
        try:
            with reading(path):
                self._open()
        except BaseException:
            self._stream.close()
            raise

    def read(self, window: Window | None = None) -> np.ndarray:
        """(h, w, C) numbers as the file holds them, upright; None: all of it.

        A tile that the file leaves out, as GDAL does of empty ones, is the number that means "not measured", or 0.
        """
        window = checked_window(self._path, window, self.facts.size, len(self.facts.bands), self._dtype)
        held = _before_turning(window, self.facts.size, self._orientation)
        with reading(self._path):
            parts = [self._read_page(number, held) for number in range(len(self._pages))]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return turn(whole, self._orientation)

    def close(self) -> None:
        """Close the file; may be called again."""
        self._stream.close()
        self._tiles.clear()

    def _open(self) -> None:
        first: TiffDirectory | None = None
        self._pages: list[TiffPage] = []
        has_mask = False
        try:
            for tags in directories(self._stream):
                kind = tags.one(_SUBFILE)
                if kind & (_SMALLER | _MASK):
                    has_mask |= bool(kind & _MASK)
                    continue
                page = tiff_page(tags)
                check_codecs(page)
                first = first or tags
                self._add(page)
        except Unread as error:
            raise DataError(f"{self._path}: {error}") from None
        except MissingExtraError as error:
            raise MissingExtraError(f"{self._path}: {error}") from error
        if first is None:
            raise ValueError("a TIFF without a picture")
        page = self._pages[0]
        self._orientation = page.orientation
        self._dtype = page.dtype.newbyteorder("=")
        bands = sum(len(page.colours) for page in self._pages)
        check_shape(self._path, page.size, bands, os.fstat(self._stream.fileno()).st_size)
        self.facts = tiff_facts(first, self._pages, self._path, has_mask=has_mask)

    def _add(self, page: TiffPage) -> None:
        if self._pages:
            one, other = self._pages[0], page
            if (
                (one.samples, other.samples) != (1, 1)
                or one.palette is not None
                or (one.size, one.dtype)
                != (
                    other.size,
                    other.dtype,
                )
            ):
                raise Unread(
                    "holds several pages, which are read as its bands where each has one band, of one size and depth;"
                    " save the one that is meant as a file of its own"
                )
            if len(self._pages) == MOST_BANDS:
                raise Unread(f"holds more than {MOST_BANDS} pages; save those that are needed")
        self._pages.append(page)

    def _read_page(self, number: int, window: Window) -> np.ndarray:
        """(h, w, S) of a page, as stored; (h, w, 3) of a palette."""
        page = self._pages[number]
        found = np.empty((window.height, window.width, page.samples), self._dtype)
        for plane in range(page.samples if page.planar else 1):
            target = found[..., plane : plane + 1] if page.planar else found
            for top, left, tile in self._touched(number, plane, window):
                inside = (slice(max(window.top - top, 0), None), slice(max(window.left - left, 0), None))
                down, across = max(top - window.top, 0), max(left - window.left, 0)
                part = tile[inside][: window.height - down, : window.width - across]
                target[down : down + part.shape[0], across : across + part.shape[1]] = part
        return found if page.palette is None else page.palette[found[..., 0]]

    def _touched(self, number: int, plane: int, window: Window) -> Iterator[tuple[int, int, np.ndarray]]:
        """(top, left, numbers) of the tiles, or pieces of strips, that a window touches."""
        page = self._pages[number]
        high, wide = page.tile
        across = page.grid[1]
        for row in range(window.top // high, (window.top + window.height - 1) // high + 1):
            for column in range(window.left // wide, (window.left + window.width - 1) // wide + 1):
                index = (plane * page.grid[0] + row) * across + column
                rows = high if page.tiled else min(high, page.size[0] - row * high)
                if page.compression == NONE and not page.tiled:
                    yield from self._pieces(page, index, row * high, rows, window)
                else:
                    yield row * high, column * wide, self._tile(number, index, rows)

    def _pieces(
        self, page: TiffPage, index: int, top: int, rows: int, window: Window
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """The rows that a window needs of a strip that is not compressed, some at a time."""
        width = page.size[1] * page.depth * page.dtype.itemsize
        if int(page.counts[index]) < rows * width and int(page.offsets[index]):
            raise ValueError(f"a strip of {int(page.counts[index]):,} bytes, where {rows * width:,} are needed")
        start, end = max(window.top - top, 0), min(window.top + window.height - top, rows)
        step = max(_PIECE // width, 1)
        for first in range(start, end, step):
            some = min(step, end - first)
            if not int(page.offsets[index]):
                yield top + first, 0, self._empty((some, page.size[1], page.depth))
                continue
            data = self._bytes(int(page.offsets[index]) + first * width, some * width)
            pixels = np.frombuffer(data, page.dtype).reshape(some, page.size[1], page.depth)
            yield top + first, 0, pixels

    def _tile(self, number: int, index: int, rows: int) -> np.ndarray:
        """(rows, w, S) of a tile or strip, from those that are kept if it is there."""
        if (number, index) in self._tiles:
            self._tiles.move_to_end((number, index))
            return self._tiles[number, index]
        page = self._pages[number]
        offset, count = int(page.offsets[index]), int(page.counts[index])
        if not offset or not count:
            return self._empty((rows, page.tile[1], page.depth))
        tile = decoded_tile(page, self._bytes(offset, count), rows)
        self._tiles[number, index] = tile
        self._kept += tile.nbytes
        while self._kept > _KEPT and len(self._tiles) > 1:
            self._kept -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def _empty(self, shape: tuple[int, int, int]) -> np.ndarray:
        nodata = self.facts.nodata
        return np.full(shape, 0 if nodata is None else nodata, self._dtype)

    def _bytes(self, offset: int, count: int) -> bytes:
        self._stream.seek(offset)
        data = self._stream.read(count)
        if len(data) < count:
            raise ValueError(f"a tile or strip of {count:,} bytes, of which the file holds {len(data):,}")
        return data


def _before_turning(window: Window, size: tuple[int, int], orientation: int) -> Window:
    """Where the pixels of an upright window lie in the stored picture; ``size``: (H, W), upright."""
    # which way a window goes is seen by turning the numbers of rows and columns of the stored picture's corners
    top, left, height, width = window
    swap = swaps_sides(orientation)
    stored = size[::-1] if swap else size
    corners = turn(np.array([[0, 1], [2, 3]]), orientation)
    down_is_flipped = corners[1, 0] < corners[0, 0]
    across_is_flipped = corners[0, 1] < corners[0, 0]
    if down_is_flipped:
        top = size[0] - top - height
    if across_is_flipped:
        left = size[1] - left - width
    found = Window(left, top, width, height) if swap else Window(top, left, height, width)
    assert found.top + found.height <= stored[0] and found.left + found.width <= stored[1]
    return found
