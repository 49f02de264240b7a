"""The size of a safetensors file, from names, shapes and dtypes alone: works without values and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

#: Dtypes with their names in the format, in the order of its layout: the widest first, then by name.
_ORDER = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
#: Name in the format → dtype, of those that models have.
DTYPES = {name: dtype for dtype, name in _ORDER.items()}
_RANK = {dtype: rank for rank, dtype in enumerate(_ORDER)}
#: Bytes of the header's length field, which comes before it; the header is padded to a multiple of the second.
_PREFIX = _MULTIPLE = 8


def stored_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of a safetensors file of these tensors, floating-point ones at float16; 0 without tensors."""
    if not tensors:
        return 0
    header, place = {}, 0
    for name in sorted(tensors, key=lambda name: (_RANK[_stored(tensors[name])], name)):
        tensor, dtype = tensors[name], _stored(tensors[name])
        end = place + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": _ORDER[dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return _PREFIX + -(-length // _MULTIPLE) * _MULTIPLE + place


def _stored(tensor: Tensor) -> torch.dtype:
    return torch.float16 if tensor.is_floating_point() else tensor.dtype
