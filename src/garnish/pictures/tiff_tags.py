"""The entries of a TIFF directory as bytes (TIFF 6.0, sections 2 and 8; BigTIFF as libtiff writes it).

A directory is a list of entries (tag, type, count, values); values that are longer than the entry lie elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import final

import numpy as np

#: A tag's values: text, or numbers in the type that the file holds them in.
Tag = str | np.ndarray
#: Types of TIFF 6.0, and 16 of BigTIFF.
_KINDS = {"u1": 1, "u2": 3, "u4": 4, "f8": 12, "u8": 16}
_TEXT = 2


@final
class TiffLayout:
    """How a little-endian TIFF is laid out: the classic one, whose offsets have 32 bits, or BigTIFF with 64."""

    def __init__(self, *, big: bool) -> None:
        self.offset = np.dtype("<u8" if big else "<u4")
        self._count = "<Q" if big else "<H"
        self._entry = "<HHQ" if big else "<HHI"
        self._start = struct.pack("<2sHHH", b"II", 43, 8, 0) if big else struct.pack("<2sH", b"II", 42)

    def header(self, directory: int) -> bytes:
        """The start of a file whose directory begins at byte ``directory``."""
        return self._start + self._offset(directory)

    def directory(self, tags: Mapping[int, Tag], at: int) -> bytes:
        """The only directory of a file, for byte ``at``, and the values that it points to."""
        width = self.offset.itemsize
        entry_size = struct.calcsize(self._entry) + width
        elsewhere = at + struct.calcsize(self._count) + entry_size * len(tags) + width
        entries, values = b"", b""
        for tag, value in sorted(tags.items()):
            kind, count, data = _encoded(value)
            if len(data) > width:
                place = elsewhere + len(values)
                values += data + bytes(-len(data) % 8)
                data = self._offset(place)
            entries += struct.pack(self._entry, tag, kind, count) + data.ljust(width, b"\0")
        return struct.pack(self._count, len(tags)) + entries + self._offset(0) + values

    def _offset(self, place: int) -> bytes:
        return place.to_bytes(self.offset.itemsize, "little")


def _encoded(value: Tag) -> tuple[int, int, bytes]:
    """(type, count, bytes) of a tag's values."""
    if isinstance(value, str):
        data = value.encode("utf-8") + b"\0"
        return _TEXT, len(data), data
    little = value.astype(value.dtype.newbyteorder("<"))
    return _KINDS[little.dtype.str[1:]], little.size, little.tobytes()
