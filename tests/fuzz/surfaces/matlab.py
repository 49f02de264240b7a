"""MATLAB files: ``read_mat``, and the layout that reads parts and label maps from them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
from scipy.io import savemat

from garnish.data.layouts.pascal_context import PascalContextMultiTask
from garnish.errors import DataError
from garnish.files.matlab import read_mat

from ..damage_files import another_kind, any_bytes, become, damaged_bytes
from ..surface import Damage, Surface
from ..verdicts import WrongReading


def _anno() -> dict[str, Any]:
    part = np.zeros((1, 2), [("part_name", object), ("mask", object)])
    for number, name in enumerate(("head", "torso")):
        part[0, number] = (name, np.eye(6, 8, number, dtype=np.uint8))
    thing = np.zeros((1, 1), [("class", object), ("class_ind", object), ("parts", object)])
    thing[0, 0] = ("person", np.array([[15]], np.uint8), part)
    note = np.zeros((1, 1), [("imname", object), ("objects", object)])
    note[0, 0] = ("2008_000003", thing)
    return {"anno": note}


class Matlab(Surface):
    """A label map and the parts of a person, compressed and not."""

    name: ClassVar[str] = "mat"
    share: ClassVar[float] = 1.0

    def make(self, folder: Path) -> None:
        maps = {"LabelMap": np.arange(48, dtype=np.uint16).reshape(6, 8)}
        for name, content, variable in (("map", maps, "LabelMap"), ("anno", _anno(), "anno")):
            for packed in (True, False):
                place = folder / f"{name}_{packed}"
                place.mkdir()
                savemat(place / "a.mat", content, do_compression=packed)
                (place / "variable").write_text(variable)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(4.0, any_bytes(_files)), (3.0, _inside), (0.4, another_kind(_files))]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        variable, file = (folder / "variable").read_text(), folder / "a.mat"
        if draw.random() < 0.5:
            _check(read_mat(file, variable))
            return
        layout, task = PascalContextMultiTask(path="."), "parts" if variable == "anno" else "edges"
        try:
            raw = layout.read(task, file)
        except DataError as error:
            if "JPEGImages" in str(error):  # its picture's size, which there is not
                return
            raise
        if (
            raw.ndim != 2
            or raw.dtype not in (np.uint8, np.bool_)
            or (task == "parts" and not np.isin(raw, (*range(7), 255)).all())
        ):
            raise WrongReading(f"{task}: {raw.dtype} {raw.shape}")


def _check(value: object) -> None:
    """Only numbers, text, lists and mappings by field."""
    if isinstance(value, list):
        for entry in value[:100]:
            _check(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            _check(entry)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind not in "iuf" or value.ndim < 2:
            raise WrongReading(f"{value.dtype} {value.shape}")
    elif not isinstance(value, str):
        raise WrongReading(type(value).__name__)


def _files(folder: Path) -> list[Path]:
    return [folder / "a.mat"]


def _inside(draw: Random, folder: Path) -> str:
    """Damage to what is compressed, which is compressed again."""
    file = folder / "a.mat"
    data = file.read_bytes()
    kind, size = struct.unpack_from("<II", data, 128)
    if kind != 15:
        changed, told = damaged_bytes(draw, data[128:])
        file.write_bytes(data[:128] + changed)
        return told
    changed, told = damaged_bytes(draw, zlib.decompress(data[136 : 136 + size]))
    packed = zlib.compress(changed)
    file.write_bytes(data[:128] + struct.pack("<II", 15, len(packed)) + packed)
    return f"inside: {told}"


# ---- made by hand -----------------------------------------------------------------------------------------------


def element(kind: int, data: bytes) -> bytes:
    """An element, padded to eight bytes."""
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(cls: int, shape: tuple[int, ...], name: bytes, *content: bytes) -> bytes:
    """A matrix of a class."""
    head = (
        element(6, struct.pack("<II", cls, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name)
    )
    return element(14, head + b"".join(content))


def struct_of(shape: tuple[int, ...], names: list[bytes], width: int, *values: bytes, name: bytes = b"anno") -> bytes:
    """A structure with fields, whose names take ``width`` bytes each."""
    packed = b"".join(n[:width].ljust(width, b"\0") for n in names)
    return matrix(2, shape, name, element(5, struct.pack("<i", width)), element(1, packed), *values)


def _file(*elements: bytes, packed: bool = False) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        data = b"".join(elements)
        if packed:
            small = zlib.compress(data)
            data = struct.pack("<II", 15, len(small)) + small
        (folder / "a.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\0\x01IM" + data)
        (folder / "variable").write_text("anno")
        return ""

    return damage


def _nested(depth: int) -> bytes:
    value = matrix(6, (1, 1), b"", element(9, bytes(8)))
    for _ in range(depth):
        value = matrix(1, (1, 1), b"anno", value)
    return value


CRAFTED: dict[str, Damage] = {
    "many fields": _file(struct_of((1, 1), [b"a"] * 3_000_000, 1), packed=True),
    "many empty fields": _file(struct_of((0, 0), [b"a"] * 10_000_000, 1), packed=True),
    "fields of many": _file(struct_of((300, 300), [b"a"] * 3000, 1), packed=True),
    "many of no field": _file(struct_of((2**30, 1), [], 1), packed=True),
    "many of a field": _file(struct_of((99_999, 1), [b"f"], 1, element(14, b"") * 99_999), packed=True),
    "wide names": _file(struct_of((1, 1), [b"x" * 1000] * 50_000, 1000), packed=True),
    "large shape": _file(matrix(6, (2**31 - 1, 2**31 - 1), b"anno", element(9, b""))),
    "many sizes": _file(matrix(6, (1,) * 100_000, b"anno", element(9, bytes(8)))),
    "empty of many sizes": _file(matrix(6, (0,) * 64, b"anno", element(9, b""))),
    "deep": _file(_nested(2000)),
    "cells": _file(matrix(1, (10**5, 1), b"anno", element(14, b"") * 10**5), packed=True),
    "bomb": _file(matrix(9, (2**14, 2**15), b"anno", element(2, bytes(2**29))), packed=True),
    "long text": _file(matrix(4, (1, 10**8), b"anno", element(16, b"a" * 10**8)), packed=True),
    "long name": _file(matrix(6, (1, 1), b"a" * 10**7, element(9, bytes(8))), packed=True),
    "many variables": _file(matrix(6, (1, 1), b"b", element(9, bytes(8))) * 200_000),
    "many packed": _file(*[struct.pack("<II", 15, len(z := zlib.compress(bytes(16)))) + z] * 100_000),
    "control": _file(struct_of((1, 1), [b"\x1b[2J"], 8, matrix(4, (1, 3), b"", element(16, b"\x1b]0")))),
    "part": _file(
        struct_of(
            (1, 1),
            [b"objects"],
            8,
            struct_of(
                (1, 1),
                [b"class_ind", b"parts"],
                16,
                matrix(9, (1, 1), b"", element(2, b"\x0f")),
                struct_of(
                    (1, 1),
                    [b"part_name", b"mask"],
                    16,
                    matrix(4, (1, 4), b"", element(16, b"\x1b[2J")),
                    matrix(9, (1, 1), b"", element(2, b"\1")),
                ),
            ),
        )
    ),
    **{
        how: (lambda draw, folder, how=how: become(folder / "a.mat", how) or "")
        for how in ("pipe", "/dev/zero", "sparse", "folder")
    },
}
