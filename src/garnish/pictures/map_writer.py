"""``MapWriter``: a map of any size, written row by row as a tiled TIFF, which appears when it is complete.

It needs NumPy alone (of a GeoTIFF see :mod:`garnish.pictures.geotiff_tags`): libraries that write TIFF want the whole
array, or take tiles from a generator, so that rows would have to be pushed from a thread.
Shape letters: H W pixels of the map, h rows that are given at once, B bands.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, final

import numpy as np

from garnish.errors import DataError
from garnish.files.atomic import GrowingFile, writing
from garnish.files.memory_file import MemoryFile
from garnish.pictures.geotiff_tags import geotiff_tags
from garnish.pictures.raster import Georeference
from garnish.pictures.tiff_tags import Tag, TiffLayout

# tags of TIFF 6.0, and GDAL's of "not measured"
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 256, 257, 258, 259, 262, 277, 284
_PREDICTOR, _COLOURS, _TILE_WIDTH, _TILE_LENGTH, _OFFSETS, _COUNTS, _EXTRA, _FORMAT = (
    317,
    320,
    322,
    323,
    324,
    325,
    338,
    339,
)
_NODATA = 42113
_DEFLATE, _DIFFERENCES = 8, 2
_GREY, _RGB, _PALETTE = 1, 2, 3
#: NumPy's kind → TIFF's SampleFormat
_FORMATS = {"u": 1, "i": 2, "f": 3}
_DTYPES = ("uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "float64")
#: Of deflate: of noisy maps (depth, normals, edges) 6 takes 2.3 times as long for files that are 4 % smaller.
_LEVEL = 3
#: Bytes from which on a file is a BigTIFF: offsets of the classic one have 32 bits; the tables need some room.
_CLASSIC = 2**32 - 2**26


@final
class UnwrittenMap(DataError):
    """A map for which there is no space or permission, so that no other could be written there either."""


@final
class MapWriter:
    """Writes a map from the top; it has its name only once :meth:`close` has been called, and is whole then.

    One row of tiles is held in memory. Tiles are deflated; whole numbers of 16 and 32 bits as differences of neighbours
    (predictor 2), which shrinks smooth maps. Use it as a context manager: an exception leaves no file, or the old one.

    Args:
        path: the file, replaced if there is one; or one in memory.
        size: (H, W).
        bands: B; three of whole numbers are shown as red, green and blue by viewers.
        dtype: of the numbers: whole numbers of 8, 16 or 32 bits, floats of 16, 32 or 64.
        place: where it lies on the ground, as a GeoTIFF says it; None: not said.
        nodata: the number that means "not measured", as GDAL says it; None: none does.
        palette: (n ≤ 256, 3) uint8 colours of the numbers 0 … n − 1 of one band of uint8; others are black.

    Raises:
        DataError: what TIFF cannot hold; a file that cannot be written.
        MissingExtraError: a ``place`` that takes rasterio, which is not installed.
    """

    def __init__(
        self,
        path: Path | MemoryFile,
        size: tuple[int, int],
        bands: int,
        dtype: np.dtype | str,
        place: Georeference | None,
        nodata: float | None = None,
        palette: np.ndarray | Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._path, self._size, self._bands, self._dtype = path, size, bands, np.dtype(dtype)
        if self._dtype.name not in _DTYPES or min(*size, bands) < 1 or max(*size, bands * 2**16) >= 2**32:
            raise DataError(
                f"{path}: a map of {size[1]}x{size[0]} with {bands} bands of {dtype} is none that TIFF holds"
            )
        pixel = bands * self._dtype.itemsize
        self._tile = 512 if max(size) > 512 and pixel <= 8 else 256
        self._tags = self._described(palette) | (geotiff_tags(place, str(path)) if place else {})
        if nodata is not None:
            self._tags[_NODATA] = f"{nodata:.17g}"
        across, down = (-(-side // self._tile) for side in (size[1], size[0]))
        # what deflate cannot shrink grows by less than a thousandth
        self._layout = TiffLayout(big=across * down * (self._tile**2 * pixel * 1.001 + 64) > _CLASSIC)
        self._rows = np.zeros((self._tile, across * self._tile, bands), self._dtype.newbyteorder("<"))
        self._done = 0
        self._offsets: list[int] = []
        self._counts: list[int] = []
        with writing(path, "", UnwrittenMap):
            self._file = GrowingFile(path) if isinstance(path, Path) else path
        try:
            self._put(self._layout.header(0))
        except BaseException:
            self.abort()
            raise

    def write(self, rows: np.ndarray) -> None:
        """Write the next rows.

        Args:
            rows: (h, W, B) of the map's dtype, any h.

        Raises:
            DataError: another shape or dtype, more rows than the map has, no space; nothing is left then.
        """
        try:
            self._check(rows)
            while len(rows):
                held = self._done % self._tile
                part = rows[: self._tile - held]
                self._rows[held : held + len(part), : self._size[1]] = part
                self._done += len(part)
                if held + len(part) == self._tile or self._done == self._size[0]:
                    self._write_tiles()
                rows = rows[len(part) :]
        except BaseException:
            self.abort()
            raise

    def close(self) -> None:
        """Complete the file and give it its name; nothing if that was done, or :meth:`abort`.

        Raises:
            DataError: rows are missing, or no space; nothing is left then.
        """
        if self._file.stream.closed:
            return
        try:
            if self._done < self._size[0]:
                raise DataError(f"{self._path}: {self._done} of {self._size[0]} rows were written; write all of them")
            tags = self._tags | {
                _OFFSETS: np.array(self._offsets, self._layout.offset),
                _COUNTS: np.array(self._counts, self._layout.offset),
            }
            with writing(self._path, "", UnwrittenMap):
                stream = self._file.stream
                stream.write(bytes(-stream.tell() % 8))
                at = stream.tell()
                stream.write(self._layout.directory(tags, at))
                stream.seek(0)
                stream.write(self._layout.header(at))
                self._file.finish()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Leave nothing of what was written; nothing after :meth:`close`."""
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _described(self, palette: np.ndarray | Sequence[Sequence[int]] | None) -> dict[int, Tag]:
        """What the directory says of the numbers, of each band alike."""
        kind, bits = self._dtype.kind, self._dtype.itemsize * 8
        each = np.ones(self._bands, np.uint16)
        colours = 3 if self._bands == 3 and kind == "u" else 1
        tags: dict[int, Tag] = {
            _WIDTH: np.array([self._size[1]], np.uint32),
            _LENGTH: np.array([self._size[0]], np.uint32),
            _BITS: each * bits,
            _COMPRESSION: _short(_DEFLATE),
            _PHOTOMETRIC: _short(_RGB if colours == 3 else _GREY),
            _SAMPLES: _short(self._bands),
            _PLANAR: _short(1),
            _TILE_WIDTH: _short(self._tile),
            _TILE_LENGTH: _short(self._tile),
            _FORMAT: each * _FORMATS[kind],
        }
        if self._bands > colours:
            tags[_EXTRA] = each[colours:] * 0  # bands of no meaning that TIFF knows
        if kind != "f" and bits > 8:
            tags[_PREDICTOR] = _short(_DIFFERENCES)
        if palette is not None:
            given = np.asarray(palette)
            if (self._dtype.name, self._bands) != ("uint8", 1) or given.shape[1:] != (3,) or not 1 <= len(given) <= 256:
                raise DataError(f"{self._path}: a palette has up to 256 colours, and is of one band of uint8")
            table = np.zeros((256, 3), np.uint16)
            table[: len(given)] = given
            tags |= {_PHOTOMETRIC: _short(_PALETTE), _COLOURS: (table * 257).T.ravel()}
        return tags

    def _check(self, rows: np.ndarray) -> None:
        if self._file.stream.closed:
            raise DataError(f"{self._path}: is closed, and takes no more rows")
        if rows.ndim != 3 or rows.shape[1:] != (self._size[1], self._bands) or rows.dtype != self._dtype:
            raise DataError(
                f"{self._path}: rows of {rows.shape} {rows.dtype}, where (any, {self._size[1]}, {self._bands})"
                f" {self._dtype} is written"
            )
        if self._done + len(rows) > self._size[0]:
            raise DataError(f"{self._path}: more rows than its {self._size[0]}")

    def _write_tiles(self) -> None:
        self._rows[(self._done - 1) % self._tile + 1 :] = 0  # what is left of the rows before
        for left in range(0, self._rows.shape[1], self._tile):
            tile = self._rows[:, left : left + self._tile]
            if _PREDICTOR in self._tags:
                tile = tile.copy()
                tile[:, 1:] -= self._rows[:, left : left + self._tile - 1]  # whole numbers wrap around
            self._offsets.append(self._file.stream.tell())
            data = zlib.compress(tile.tobytes(), _LEVEL)
            self._counts.append(len(data))
            self._put(data)

    def _put(self, data: bytes) -> None:
        with writing(self._path, "", UnwrittenMap):
            self._file.stream.write(data)


def _short(value: int) -> np.ndarray:
    return np.array([value], np.uint16)
