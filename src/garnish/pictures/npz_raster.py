"""``NpzRaster``: arrays that ``numpy.savez`` wrote: one of any bands, or one a band, by name.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast, final

import numpy as np

from garnish.errors import DataError, one_line, shown
from garnish.files.npy_header import npy_header
from garnish.files.pictures import MAX_BYTES
from garnish.files.regular import open_regular
from garnish.pictures.array_layout import bands_first, plain_numbers
from garnish.pictures.bands import MOST_BANDS
from garnish.pictures.raster import Raster, RasterFacts, Window
from garnish.pictures.reading import MOST_READ, check_shape, checked_window, reading

#: Bytes of the list of a zip file, of which 1024 bands take some 100 each.
_MOST_LIST = 2**20
_END, _END_64, _LOCATOR = b"PK\5\6", 22, 20


class _Array(NamedTuple):
    """What the header of one array says."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype


@final
class NpzRaster(Raster):
    """Arrays in a zip file, decoded once when they are first read, and kept until it is closed.

    Args:
        path: the file.
        bands: their number, if it is stated: see :mod:`garnish.pictures.array_layout`.

    Raises:
        DataError: damaged, objects, arrays of several sizes or dtypes, or a shape that is no picture's.
    """

    def __init__(self, path: Path, bands: int | None = None) -> None:
        self._path = path
        self._pixels: np.ndarray | None = None
        with reading(path), open_regular(path, MAX_BYTES) as stream:
            size = _check_list(stream)
            with zipfile.ZipFile(stream) as archive:
                self._arrays = {info.filename: _header(archive, info) for info in _members(archive, path)}
        self._dtype = self._checked_dtype()
        self._first = False
        if len(self._arrays) == 1:
            (shape, _, _), *_ = self._arrays.values()
            with reading(path):
                self._first = bands_first(path, shape, bands)
            height, width, count = (*shape[1:], shape[0]) if self._first else (*shape, 1)[:3]
            names: tuple[str | None, ...] = (None,) * count
        else:
            height, width = self._one_size()
            names = tuple(one_line(name.removesuffix(".npy"), 120) for name in self._arrays)
        check_shape(path, (height, width), len(names), size)
        if height * width * len(names) * self._dtype.itemsize > MOST_READ:
            raise DataError(f"{path}: holds more than {MOST_READ / 2**30:.0f} GB; save a TIFF or .npy, read by windows")
        self.facts = RasterFacts(size=(height, width), dtype=self._dtype.name, bands=names, notes={"format": "npz"})

    def read(self, window: Window | None = None) -> np.ndarray:
        """(h, w, C) numbers as the file holds them; None: all of it."""
        top, left, height, width = checked_window(
            self._path, window, self.facts.size, len(self.facts.bands), self._dtype
        )
        if self._pixels is None:
            with reading(self._path):
                self._pixels = self._decoded()
        return self._pixels[top : top + height, left : left + width].copy()

    def close(self) -> None:
        """Forget the numbers; may be called again."""
        self._pixels = None

    def _checked_dtype(self) -> np.dtype:
        found = {plain_numbers(self._path, array.dtype) for array in self._arrays.values()}
        if len(found) > 1:
            told = ", ".join(sorted(dtype.name for dtype in found))
            raise DataError(f"{self._path}: holds bands of {told}; save all of them as one")
        return found.pop()

    def _one_size(self) -> tuple[int, int]:
        for name, array in self._arrays.items():
            if len(array.shape) != 2:
                raise DataError(
                    f"{self._path}: {one_line(name, 60)} of several arrays has shape {shown(array.shape)}; save one"
                    " array, or one of (H, W) a band"
                )
        sizes = {array.shape for array in self._arrays.values()}
        if len(sizes) > 1:
            raise DataError(f"{self._path}: holds bands of shapes {shown(sorted(sizes))}; save all of them at one size")
        height, width = sizes.pop()
        return height, width

    def _decoded(self) -> np.ndarray:
        whole = np.empty((*self.facts.size, len(self.facts.bands)), self._dtype)
        with open_regular(self._path, MAX_BYTES) as stream, zipfile.ZipFile(stream) as archive:
            for number, (name, array) in enumerate(self._arrays.items()):
                with archive.open(name) as member:
                    if _Array(*npy_header(cast(BinaryIO, member))) != array:
                        raise ValueError("it was replaced while it was read")
                    size = math.prod(array.shape) * array.dtype.itemsize
                    data = member.read(size)
                if len(data) < size:
                    raise ValueError(f"{name}: {len(data):,} bytes, where {shown(array.shape)} needs {size:,}")
                numbers = np.frombuffer(data, array.dtype)
                numbers = numbers.reshape(array.shape, order="F" if array.by_columns else "C")
                if len(self._arrays) > 1:
                    whole[..., number] = numbers
                elif self._first:
                    whole[:] = numbers.transpose(1, 2, 0)
                else:
                    whole[:] = numbers.reshape(whole.shape)
        return whole


def _check_list(stream: BinaryIO) -> int:
    """The file's size; raises ValueError where its list of arrays is longer than that of any picture."""
    size = stream.seek(0, 2)
    stream.seek(max(size - 2**16 - _END_64 - _LOCATOR, 0))
    tail = stream.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + _END_64:
        raise ValueError("a zip file that is cut off")
    length = struct.unpack("<I", tail[at + 12 : at + 16])[0]
    if length > _MOST_LIST or tail[max(at - _LOCATOR, 0) : at].startswith(b"PK\6\7"):
        raise ValueError("a zip file with a list that is longer than that of any picture")
    stream.seek(0)
    return size


def _members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    found = archive.infolist()
    if not found or len(found) > MOST_BANDS or len({info.filename for info in found}) < len(found):
        raise DataError(f"{path}: holds {len(found)} arrays, or two of one name; save one array, or one a band")
    return found


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Array:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise ValueError(f"{info.filename} is compressed in another way than numpy.savez does")
    with archive.open(info) as member:
        return _Array(*npy_header(cast(BinaryIO, member)))
