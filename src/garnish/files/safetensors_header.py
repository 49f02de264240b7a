"""The header of a safetensors file: names, dtypes and shapes, known before anything is read or built after them.

Nothing here needs torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from garnish.checking.plain_data import Json, Reading, Unfit, conform
from garnish.errors import shown
from garnish.files.regular import open_regular
from garnish.files.strict_json import parse_json

#: Name → (dtype as safetensors names it, shape).
Header = dict[str, tuple[str, tuple[int, ...]]]
#: The largest header that is read, bytes; that of a model with thousands of tensors has some hundred thousand.
MOST_HEADER = 32 * 2**20

#: Bits of an element.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32,
    "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_METADATA = "__metadata__"
_READING = Reading(builds=False)


def read_header(file: str | os.PathLike[str], most: int) -> Header:
    """Names, dtypes and shapes in a safetensors file; the tensors are not read.

    Args:
        file: its path.
        most: the largest size of the whole file, bytes.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is larger. ValueError: a header that is damaged, too
        large, or describes other data than those that follow it.
    """
    return read_with_metadata(file, most)[0]


def read_with_metadata(file: str | os.PathLike[str], most: int) -> tuple[Header, dict[str, str]]:
    """As :func:`read_header`, and the texts of its metadata."""
    with open_regular(file, most) as stream:
        whole = os.fstat(stream.fileno()).st_size
        size = int.from_bytes(stream.read(8), "little")
        if whole < 8 or not 2 <= size <= whole - 8:
            raise ValueError("it is no safetensors file")
        if size > MOST_HEADER:
            raise ValueError(f"its header of {size:,} bytes is larger than the {MOST_HEADER:,} that are read")
        text = stream.read(size)
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError("its header is no mapping")
    return _entries(found, whole - 8 - size), _read(found.get(_METADATA, {}), dict[str, str], _METADATA)


def _entries(found: Mapping[str, Json], data: int) -> Header:
    """The tensors of a header, which lie one after the other in so many bytes of data."""
    made: Header = {}
    places: list[tuple[int, int]] = []
    for name, value in found.items():
        if name == _METADATA:
            continue
        # types by hand: there may be thousands, and loading waits for them
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"its tensor {shown(name)} is not described by dtype, shape and data_offsets")
        dtype, sides, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not (isinstance(dtype, str) and dtype in _BITS and _are_sizes(sides, 16) and _are_sizes(offsets, 2)):
            raise ValueError(f"its tensor {shown(name)} has a dtype, shape or offsets that are not known")
        if len(offsets) != 2:
            raise ValueError(f"its tensor {shown(name)} has {len(offsets)} offsets instead of 2")
        shape = tuple(sides)
        if 8 * (offsets[1] - offsets[0]) != math.prod(shape) * _BITS[dtype]:
            raise ValueError(f"its tensor {shown(name)} has another size than its dtype and shape")
        places.append((offsets[0], offsets[1]))
        made[name] = dtype, shape
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise ValueError("its tensors overlap, or leave gaps")
        end = stop
    if end != data:
        raise ValueError(f"it tells of {end:,} bytes of tensors, and {data:,} follow")
    return made


def _are_sizes(value: Json, most: int) -> bool:
    """Whether a value is a list of whole numbers from 0 to the largest of 64 bits."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(side) is int and 0 <= side < 2**63 for side in value)
    )


def _read(value: object, hint: type, at: str) -> Json:
    try:
        return conform(value, hint, at, _READING)
    except Unfit as unfit:
        raise ValueError(unfit.line()) from None
