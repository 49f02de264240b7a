"""The directories of a TIFF or BigTIFF file, read without trust (TIFF 6.0, section 2; BigTIFF as libtiff reads it).

Only what is asked for is read, in bounds that the file's size explains. tifffile reads more kinds of TIFF, but parses
the private tags of twenty makers while it opens a file, and logs what it mends: a stranger's file is to meet less.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Literal, final

import numpy as np

#: Type of TIFF → NumPy's; fractions are never asked for.
_KINDS = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4", 16: "u8",
    17: "i8", 18: "u8",
}  # fmt: skip
_TEXT = 2
_MOST_TAGS = 4096
#: Most directories of a file: bands as pages, and smaller copies of each.
_MOST_DIRECTORIES = 8192


@final
class TiffDirectory:
    """The tags of one picture of a TIFF file, by number; values are read when they are asked for."""

    def __init__(self, stream: BinaryIO, order: str, entries: dict[int, tuple[int, int, int]]) -> None:
        self._stream = stream
        self._entries = entries
        #: of all numbers in the file.
        self.order: Literal["<", ">"] = "<" if order == "<" else ">"

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def count(self, tag: int) -> int:
        """How many values a tag has; 0 if it is not there."""
        return self._entries[tag][1] if tag in self._entries else 0

    def numbers(self, tag: int, most: int) -> np.ndarray:
        """The values of a tag, at most ``most``; none if it is not there.

        Raises:
            ValueError: more values, text, a type that is not known, or not as many bytes in the file.
        """
        if tag not in self._entries:
            return np.zeros(0, np.uint32)
        kind, count, place = self._entries[tag]
        if kind not in _KINDS or count > most:
            raise ValueError(f"tag {tag} has {count:,} values of type {kind}")
        dtype = np.dtype(_KINDS[kind]).newbyteorder(self.order)
        self._stream.seek(place)
        data = self._stream.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise ValueError(f"tag {tag} has {count:,} values, of which the file holds {len(data):,} bytes")
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)

    def one(self, tag: int, default: int = 0) -> int:
        """The only value of a tag; the first where bands repeat it.

        Raises:
            ValueError: as :meth:`numbers`.
        """
        found = self.numbers(tag, 2**16)
        return int(found[0]) if found.size else default

    def text(self, tag: int, most: int) -> str:
        """The text of a tag, empty if it is not there or none; raises as :meth:`numbers`."""
        if tag not in self._entries or self._entries[tag][0] not in (1, _TEXT, 7):
            return ""
        return self.numbers(tag, most).tobytes().split(b"\0")[0].decode("utf-8", "replace")

    def data(self, tag: int, most: int) -> bytes:
        """The bytes of a tag, empty if it is not there; raises as :meth:`numbers`."""
        return self.numbers(tag, most).tobytes()


def directories(stream: BinaryIO) -> Iterator[TiffDirectory]:
    """The directories of a file that begins as a TIFF, in its order.

    Raises:
        ValueError: damaged, directories in a circle, or too many.
    """
    stream.seek(0)
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    if big and struct.unpack(f"{order}HH", head[4:8]) != (8, 0):
        raise ValueError("a BigTIFF whose offsets have not 8 bytes")
    offset, count_form, entry_form = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    width, start = struct.calcsize(f"={offset}"), 8 if big else 4
    place = _unpacked(order + offset, head[start : start + width])
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) >= _MOST_DIRECTORIES:
            raise ValueError(f"directories that lead in a circle, or more than {_MOST_DIRECTORIES}")
        seen.add(place)
        stream.seek(place)
        head_size = struct.calcsize(f"={count_form}")
        number = _unpacked(order + count_form, stream.read(head_size))
        size = struct.calcsize(f"={entry_form}") + width
        if number > _MOST_TAGS:
            raise ValueError(f"a directory of {number:,} tags")
        table = stream.read(number * size + width)
        if len(table) < number * size + width:
            raise ValueError("its directory is cut off")
        entries: dict[int, tuple[int, int, int]] = {}
        for index in range(number):
            entry = table[index * size : (index + 1) * size]
            tag, kind, count = struct.unpack(f"{order}{entry_form}", entry[:-width])
            held = count * np.dtype(_KINDS.get(kind, "u1")).itemsize <= width
            inside = place + head_size + (index + 1) * size - width
            entries.setdefault(tag, (kind, count, inside if held else _unpacked(order + offset, entry[-width:])))
        yield TiffDirectory(stream, order, entries)
        place = _unpacked(order + offset, table[-width:])


def _unpacked(form: str, data: bytes) -> int:
    try:
        return int(struct.unpack(form, data)[0])
    except struct.error as error:
        raise ValueError("its directory is cut off") from error
