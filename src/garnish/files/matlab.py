"""Reading variables of MATLAB 5 files (``save`` up to ``-v7``): numbers, text, cells, structures, of bounded sizes.

A file is a header of 128 bytes and elements (type, length, content), possibly compressed; an element of type matrix
holds flags, dimensions, a name, and its numbers or further matrices. "MAT-File Format", The MathWorks, chapter 1.

``scipy.io.loadmat`` is not used because it trusts the lengths in a file: version 1.17 crashes with a segmentation
fault on some files of a few hundred bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from garnish.errors import DataError, one_line, plural, shown
from garnish.files.regular import UnfitFile, read_regular

#: Largest file, and largest content after decompression, in bytes.
MAX_BYTES = 256 * 2**20
#: Largest number of matrices in a variable, including cells and fields of structures.
_MAX_MATRICES = 100_000
_MAX_DEPTH = 16
#: Largest number of dimensions, characters of a name and characters of a text.
_MAX_AXES, _MAX_NAME, _MAX_TEXT = 32, 1024, 2**20
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = range(6, 16)
_COMPLEX = 0x800
#: Type of stored numbers → numpy's.
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
#: Type of stored text → its encoding; type 4 holds 16-bit units.
_TEXT = {1: "latin-1", 2: "latin-1", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}


def read_mat(path: Path, variable: str) -> object:
    """One variable of a MATLAB 5 file.

    Returns:
        Numbers: an array of the variable's shape in the type they are stored in (which may be smaller than the
        variable's), read-only. Text: str, rows one after the other. Cells: a list in MATLAB's order, first index
        fastest. Structures: a list of them in that order, each a dict by field.

    Raises:
        DataError: missing, damaged, too large, another format (7.3 is HDF5), without the variable, or a variable with
            objects, functions, sparse or complex numbers in it.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except UnfitFile as error:
        raise DataError(f"{path}: {error}; give a MATLAB 5 file, cut into smaller ones if need be") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or one_line(error, 100)}); restore it") from None
    if content[:19] == b"MATLAB 7.3 MAT-file" or b"\x89HDF" in (content[:4], content[512:516]):
        raise DataError(f"{path}: MATLAB 7.3 (HDF5) is not read; load and save it in MATLAB with save(…, '-v7')")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    if order is None:
        raise DataError(f"{path}: not a MATLAB 5 file; save it in MATLAB with save(…, '-v7')")
    try:
        return _find(memoryview(content), variable, _Reader(path, order))
    except (struct.error, zlib.error) as error:
        raise _damaged(path, one_line(error, 100)) from None


@final
@dataclass
class _Reader:
    """Decoder of the elements of a file; ``left``: how many more matrices may be read."""

    path: Path
    order: str
    left: int = _MAX_MATRICES

    def element(self, data: memoryview, place: int) -> tuple[int, memoryview, int]:
        """Type and content of the element at ``place``, and where the next one starts (at a multiple of 8)."""
        kind, size = struct.unpack_from(f"{self.order}II", data, place)
        if kind >> 16:  # small element: up to four bytes of content after a length of 16 bits
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            after = place + 8
        else:
            start, after = place + 8, place + 8 + (size + 7) // 8 * 8
        if start + size > len(data) or (start == place + 4 and size > 4):
            raise _damaged(self.path, "an element is longer than what holds it")
        return kind, data[start : start + size], after

    def whole(self, data: memoryview) -> tuple[int, ...]:
        """Decode 32-bit integers."""
        return struct.unpack(f"{self.order}{len(data) // 4}i", data[: len(data) // 4 * 4])

    def head(self, data: memoryview) -> tuple[int, tuple[int, ...], str, int]:
        """Flags (the last byte is the class), shape and name of a matrix, and where its content starts."""
        _, flags, place = self.element(data, 0)
        _, dims, place = self.element(data, place)
        _, name, place = self.element(data, place)
        if len(dims) > 4 * _MAX_AXES or len(name) > _MAX_NAME:
            raise _damaged(self.path, f"a matrix of more than {_MAX_AXES} dimensions, or a name of {len(name):,} bytes")
        flag, shape = self.whole(flags[:4]), self.whole(dims)
        if not flag or len(shape) < 2 or min(shape) < 0:
            raise _damaged(self.path, "a matrix without class or size")
        return flag[0], shape, bytes(name).decode("latin-1"), place

    def value(self, data: memoryview, depth: int = 0) -> object:
        """Decode the content of a matrix."""
        self.left -= 1
        if depth > _MAX_DEPTH or self.left < 0:
            raise _damaged(self.path, f"more than {_MAX_MATRICES} matrices, or {_MAX_DEPTH} levels of them")
        if not data:
            return np.zeros((0, 0))  # a cell or field that was never set
        flags, shape, _, place = self.head(data)
        cls = flags & 0xFF
        if flags & _COMPLEX:
            raise DataError(f"{self.path}: holds complex numbers, which are not read; save their real part")
        count = math.prod(shape)
        if cls == _CHAR:
            return self.text(*self.element(data, place)[:2]) if count else ""
        if cls in _NUMBERS:
            return self.numbers(*self.element(data, place)[:2], shape)
        if cls == _CELL:
            return self.several(data, place, count, depth)
        if cls != _STRUCT:
            raise DataError(f"{self.path}: holds objects, functions or sparse matrices, which are not read")
        _, widths, place = self.element(data, place)
        _, packed, place = self.element(data, place)
        width = (*self.whole(widths[:4]), 0)[0]
        if width < 1:
            raise _damaged(self.path, "field names without length")
        num_names = -(-len(packed) // width)
        if num_names > self.left:
            raise _damaged(self.path, f"more than {_MAX_MATRICES} cells or fields")
        names = [bytes(packed[k : k + width]).split(b"\0")[0].decode("latin-1") for k in range(0, len(packed), width)]
        if len(set(names)) < num_names:
            raise _damaged(self.path, "two fields of one name")
        values = self.several(data, place, count * num_names, depth)
        each = range(0, len(values), num_names or 1)
        return [dict(zip(names, values[k : k + num_names], strict=True)) for k in each]

    def several(self, data: memoryview, place: int, count: int, depth: int) -> list[object]:
        """Decode ``count`` matrices that follow each other."""
        if count > self.left:
            raise _damaged(self.path, f"more than {_MAX_MATRICES} cells or fields")
        found = []
        for _ in range(count):
            kind, inner, place = self.element(data, place)
            if kind != _MATRIX:
                raise _damaged(self.path, f"an element of type {kind} instead of a matrix")
            found.append(self.value(inner, depth + 1))
        return found

    def numbers(self, kind: int, data: memoryview, shape: tuple[int, ...]) -> np.ndarray:
        """Decode numbers, in the type they are stored in."""
        if kind not in _DTYPES:
            raise _damaged(self.path, f"numbers of type {kind}")
        dtype = np.dtype(self.order + _DTYPES[kind])
        if math.prod(shape) * dtype.itemsize != len(data):
            raise _damaged(self.path, f"{len(data)} bytes for numbers of shape {shown(shape)}")
        return np.frombuffer(data, dtype).reshape(shape, order="F")

    def text(self, kind: int, data: memoryview) -> str:
        """Decode text from the encoding it is stored in."""
        if kind not in _TEXT:
            raise _damaged(self.path, f"text of type {kind}")
        if len(data) > 4 * _MAX_TEXT:
            raise _damaged(self.path, f"a text of {plural(len(data), 'byte')}")
        wide = {"<": "-le", ">": "-be"}[self.order] if _TEXT[kind] in ("utf-16", "utf-32") else ""
        return bytes(data).decode(_TEXT[kind] + wide, errors="replace")


def _find(content: memoryview, variable: str, reader: _Reader) -> object:
    """Decode the variable from a whole file; the others are skipped."""
    place, inflated = _HEADER, 0
    while place < len(content):
        reader.left -= 1
        if reader.left < 0:
            raise _damaged(reader.path, f"more than {_MAX_MATRICES} variables")
        kind, size = struct.unpack_from(f"{reader.order}II", content, place)
        data = content[place + 8 : place + 8 + size]
        if len(data) < size:
            raise _damaged(reader.path, "it ends too early")
        place += 8 + size  # these elements are not padded
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            element = inflater.decompress(data, MAX_BYTES - inflated + 1)
            inflated += len(element)
            if inflated > MAX_BYTES or not inflater.eof:
                raise _damaged(reader.path, f"its content is cut off or larger than {MAX_BYTES // 2**20} MiB")
            kind, data, _ = reader.element(memoryview(element), 0)
        if kind == _MATRIX and data and reader.head(data)[2] == variable:
            return reader.value(data)
    raise DataError(f"{reader.path}: holds no variable {variable!r}; this is another file than the set's")


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: damaged or not a MATLAB 5 file ({reason}); fetch it again")
