"""The header of a safetensors file: names, types and shapes of its tensors, known before any of them is read or built.

The file begins with the header's length in 8 bytes (little-endian), then the header as JSON, then the tensors' bytes
without gaps. Nothing here needs torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import NamedTuple

from garnish.checking.plain_data import Json
from garnish.errors import one_line, shown
from garnish.files.regular import open_regular
from garnish.files.strict_json import parse_json

#: The longest header that is read, bytes; ten thousand tensors take one to two million. A header of the 100 million
#: that safetensors itself reads fills gigabytes once it is parsed.
MOST_HEADER = 16 * 2**20
_MOST_DIMENSIONS = 16
#: Type → bits of a value.
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
_METADATA = "__metadata__"


class DamagedHeader(ValueError):
    """Not a safetensors file, or one whose header does not describe its bytes; its text says how, without the path."""


class TensorFacts(NamedTuple):
    """One tensor of a file.

    Attributes:
        dtype: as the format calls it: ``F32``, ``F16``, ``BF16``, ``I64``, ….
        shape: any number of dimensions.
    """

    dtype: str
    shape: tuple[int, ...]


#: Name → facts, in the order of the header.
Header = dict[str, TensorFacts]


def read_header(file: str | os.PathLike[str], most: int) -> Header:
    """The tensors in a file; their values are not read.

    Args:
        file: its path.
        most: the largest size that the file may have, bytes.

    Raises:
        UnfitFile: a folder, pipe or device, or more bytes than ``most``. OSError: it cannot be opened or read.
        DamagedHeader: not a safetensors file; a header of more than :data:`MOST_HEADER` bytes, a name that stands
            twice, an unknown type, or sizes that do not cover the file exactly.
    """
    return read_with_metadata(file, most)[0]


def read_with_metadata(file: str | os.PathLike[str], most: int) -> tuple[Header, dict[str, str]]:
    """As :func:`read_header`, and the texts of its metadata."""
    with open_regular(file, most) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(8)
        if len(start) < 8:
            raise DamagedHeader(f"has {size} bytes, too few for a header")
        length = int.from_bytes(start, "little")
        if length > min(MOST_HEADER, size - 8):
            raise DamagedHeader(f"its header of {length:,} bytes is longer than the file or than {MOST_HEADER:,}")
        text = stream.read(length)
    try:
        found = parse_json(text.decode("utf-8"))
    except ValueError as error:
        raise DamagedHeader(f"its header is not JSON ({one_line(error, 100)})") from error
    if not isinstance(found, dict):
        raise DamagedHeader("its header is no mapping")
    metadata = found.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise DamagedHeader(f"its {_METADATA} is no mapping of texts")
    return _tensors(found, size - 8 - length), metadata


def _tensors(found: Mapping[str, Json], size: int) -> Header:
    """The tensors of a header, which lie one after the other in ``size`` bytes."""
    made: Header = {}
    spans: list[tuple[int, int]] = []
    for name, entry in found.items():  # by hand: there may be thousands, and loading waits for them
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise DamagedHeader(f"the entry of {shown(name)} does not have dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _BITS:
            raise DamagedHeader(f"the entry of {shown(name)} is of the unknown type {shown(dtype)}")
        if not _are_sizes(shape) or len(shape) > _MOST_DIMENSIONS:
            raise DamagedHeader(f"the entry of {shown(name)} has the shape {shown(shape)}")
        if not _are_sizes(offsets) or len(offsets) != 2:
            raise DamagedHeader(f"the entry of {shown(name)} lies at {shown(offsets)}")
        first, last = offsets
        if (last - first) * 8 != math.prod(shape) * _BITS[dtype]:
            told = f"{last - first:,} bytes, which are not {dtype} of shape {shown(tuple(shape))}"
            raise DamagedHeader(f"the entry of {shown(name)} has {told}")
        spans.append((first, last))
        made[name] = TensorFacts(dtype, tuple(shape))
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise DamagedHeader("its tensors overlap or leave gaps")
        end = last
    if end != size:
        raise DamagedHeader(f"holds {size:,} bytes of tensors, by its header {end:,}")
    return made


def _are_sizes(values: Json) -> bool:
    """Whether it is a list of whole numbers from 0 that fit 63 bits."""
    return isinstance(values, list) and all(type(one) is int and 0 <= one < 2**63 for one in values)
