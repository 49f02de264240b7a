"""Headers of safetensors files: what the library wrote is found, and damage of every kind is told."""

from __future__ import annotations

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save, save_file

from garnish.files.regular import UnfitFile
from garnish.files.safetensors_header import MOST_HEADER, DamagedHeader, TensorFacts, read_header


def written(folder, header: object, body: bytes = b"", *, length: int | None = None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file = folder / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return file


def test_what_the_library_wrote(tmp_path):
    kinds = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }
    tensors = {name: torch.zeros(2, 3, dtype=kind) for name, kind in kinds.items()}
    tensors |= {"one": torch.zeros(()), "none": torch.zeros(0, 4)}
    file = tmp_path / "a.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    found = read_header(file, 10_000)
    assert found == {name: TensorFacts(name, (2, 3)) for name in kinds} | {
        "one": TensorFacts("F32", ()),
        "none": TensorFacts("F32", (0, 4)),
    }
    assert set(found) == set(tensors)


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGED = {
    "nothing": (b"", b"", None, "is longer than the file"),
    "length": ({}, b"", 2**64 - 1, "is longer than the file"),
    "no JSON": (b"{", b"", None, "is not JSON"),
    "deep": (b"[" * 100_000, b"", None, "is not JSON"),
    "no text": (b"\xff\xfe", b"", None, "is not JSON"),
    "twice": (b'{"a": %b, "a": %b}' % ((json.dumps(GOOD).encode(),) * 2), bytes(8), None, "'a' stands twice"),
    "a list": ([GOOD], bytes(8), None, "no mapping"),
    "no entry": ({"a": 1}, b"", None, "'a' does not have dtype"),
    "a key more": ({"a": GOOD | {"b": 1}}, bytes(8), None, "'a' does not have dtype"),
    "type": ({"a": GOOD | {"dtype": "F31"}}, bytes(8), None, "unknown type 'F31'"),
    "type of type": ({"a": GOOD | {"dtype": [1]}}, bytes(8), None, "unknown type [1]"),
    "shape": ({"a": GOOD | {"shape": [-2]}}, bytes(8), None, "has the shape [-2]"),
    "a flag": ({"a": GOOD | {"shape": [True, 2]}}, bytes(8), None, "has the shape [True, 2]"),
    "a fraction": ({"a": GOOD | {"shape": [2.0]}}, bytes(8), None, "has the shape [2.0]"),
    "dimensions": ({"a": GOOD | {"shape": [1] * 17 + [2]}}, bytes(8), None, "has the shape"),
    "huge": ({"a": GOOD | {"shape": [2**62, 2**62]}}, bytes(8), None, "has 8 bytes, which are not F32"),
    "offsets": ({"a": GOOD | {"data_offsets": [8]}}, bytes(8), None, "lies at [8]"),
    "backwards": ({"a": GOOD | {"data_offsets": [8, 0]}}, bytes(8), None, "which are not F32"),
    "a gap": ({"a": GOOD | {"data_offsets": [8, 16]}}, bytes(16), None, "leave gaps"),
    "overlap": ({"a": GOOD, "b": GOOD | {"data_offsets": [4, 12]}}, bytes(12), None, "overlap"),
    "too short": ({"a": GOOD}, bytes(7), None, "holds 7 bytes of tensors, by its header 8"),
    "metadata": ({"__metadata__": {"a": 1}, "a": GOOD}, bytes(8), None, "no mapping of texts"),
    "too long": ({"a": GOOD}, bytes(9), None, "holds 9 bytes of tensors, by its header 8"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_told(kind, tmp_path):
    header, body, length, said = DAMAGED[kind]
    file = written(tmp_path, header, body, length=length)
    if kind == "nothing":
        file.write_bytes(struct.pack("<Q", 1))
    with pytest.raises(DamagedHeader) as caught:
        read_header(file, 10**6)
    assert said in str(caught.value) and len(str(caught.value)) < 300


def test_files_that_are_none(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"1234567")
    with pytest.raises(DamagedHeader, match="has 7 bytes"):
        read_header(file, 100)
    file.write_bytes(save({"a": torch.zeros(100)}))
    with pytest.raises(UnfitFile, match="more than the 100"):
        read_header(file, 100)
    with pytest.raises(UnfitFile, match="no regular file"):
        read_header(tmp_path, 100)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnfitFile, match="no regular file"):
        read_header(tmp_path / "pipe", 100)
    with file.open("wb") as stream:  # holes: nothing of that size is on the disk
        stream.write(struct.pack("<Q", 2**34))
        stream.truncate(2**34 + 8)
    with pytest.raises(DamagedHeader, match=f"longer than the file or than {MOST_HEADER:,}"):
        read_header(file, 2**40)
