"""Setting the EXIF orientation of a JPEG to 1, without touching a pixel."""

from __future__ import annotations

import struct
from pathlib import Path

from garnish.errors import DataError
from garnish.files.pictures import MAX_BYTES
from garnish.files.regular import read_regular

#: Markers of JPEG (ITU-T T.81, table B.1) and the tag of EXIF 2.32 (4.6.4.A).
_APP1, _SCAN, _TAG = 0xE1, 0xDA, 0x0112


def with_upright_tag(file: Path) -> bytes:
    """The bytes of a JPEG whose orientation is 1; nothing else of the file differs.

    Raises:
        DataError: no JPEG, or none with an orientation.
    """
    data = bytearray(read_regular(file, MAX_BYTES))
    if data[:2] != b"\xff\xd8":
        raise DataError(f"{file}: is no JPEG, and is left as it is; save it upright")
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _SCAN:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == _APP1 and data[place + 4 : place + 10] == b"Exif\0\0":
            at = _entry(data, place + 10, place + 2 + length)
            if at is not None:
                return bytes(data)
        place += 2 + length
    raise DataError(f"{file}: has no EXIF orientation; it is left as it is")


def _entry(data: bytearray, start: int, end: int) -> int | None:
    """Set the orientation in the first directory of the TIFF structure at ``start``; where it was, None: not there."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[start : start + 2]))
    if order is None or start + 8 > end:
        return None
    first: int = start + struct.unpack_from(f"{order}I", data, start + 4)[0]
    if first + 2 > end:
        return None
    for number in range(struct.unpack_from(f"{order}H", data, first)[0]):
        entry = first + 2 + 12 * number
        if entry + 12 > min(end, len(data)):
            return None
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag == _TAG and kind == 3:  # SHORT, in the first two bytes of the value
            struct.pack_into(f"{order}H", data, entry + 8, 1)
            return int(entry)
    return None
