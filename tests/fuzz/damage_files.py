"""Damage to the bytes of files, to files as such, and traps that lie beside every input."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from .damage_values import damaged, dump_json
from .odd_values import EVIL, LINK, PIPE, SPARSE

#: A file beside the folder of inputs, which must stay as it is.
OUTSIDE = "outside.txt"
_HUGE = [0, 1, 2**7, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]


class _Runs:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def lay_traps(folder: Path) -> None:
    """A pipe, a sparse file of 200 GB, a pickle that runs a command, a link to an endless device, and modules."""
    os.mkfifo(folder / PIPE)
    with (folder / SPARSE).open("wb") as file:
        file.truncate(200 * 10**9)
    (folder / EVIL).write_bytes(pickle.dumps(_Runs()))
    (folder / LINK).symlink_to("/dev/zero")
    for name in ("bait.py", "sitecustomize.py"):
        (folder / name).write_text("open('ran', 'w').close()\nclass Logger: pass\n")


TRAPS = frozenset({PIPE, SPARSE, EVIL, LINK, "bait.py", "sitecustomize.py"})


def held(folder: Path) -> list[Path]:
    """The regular files of a specimen, without traps."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and p.name not in TRAPS)


def damaged_bytes(draw: Random, data: bytes, others: Sequence[bytes] = ()) -> tuple[bytes, str]:
    """Damaged bytes: flips, cuts, insertions, repetitions, splices with another specimen, huge length fields."""
    changed = bytearray(data)
    how = draw.choice(
        ["flip", "flip", "flip", "bytes", "cut", "insert", "repeat", "splice", "length", "length", "zero"]
    )
    near_start = draw.random() < 0.5
    size = max(len(changed), 1)
    at = draw.randrange(min(size, 200) if near_start else size)
    if how == "flip":
        for _ in range(draw.choice([1, 1, 2, 8])):
            place = draw.randrange(min(size, 200) if near_start else size)
            if place < len(changed):
                changed[place] ^= 1 << draw.randrange(8)
    elif how == "bytes":
        count = draw.choice([1, 2, 4, 16])
        changed[at : at + count] = draw.randbytes(count)
    elif how == "cut":
        del changed[at:]
    elif how == "insert":
        changed[at:at] = draw.choice([b"\0", b"\n", b"\xff\xfe", draw.randbytes(7), b"A" * 5000, b"\x1b[2J"])
    elif how == "repeat":
        piece = bytes(changed[at : at + draw.choice([1, 8, 64, 1000])])
        changed[at:at] = piece * draw.choice([1, 2, 100])
    elif how == "splice" and others:
        other = draw.choice(list(others))
        there = draw.randrange(max(len(other), 1))
        changed[at:] = other[there:]
    elif how == "zero":
        count = draw.choice([1, 4, 8, 100])
        changed[at : at + count] = bytes(count)
    else:
        form = draw.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"])
        packed = struct.pack("<Q", draw.choice(_HUGE))[: struct.calcsize(form)]
        changed[at : at + len(packed)] = packed if form[0] == "<" else packed[::-1]
        how = f"length {form}"
    return bytes(changed), f"{how} at {at}"


def any_bytes(names: Callable[[Path], list[Path]] = held) -> Callable[[Random, Path], str]:
    """Damage to the bytes of one of the files that ``names`` gives."""

    def damage(draw: Random, folder: Path) -> str:
        files = names(folder)
        file = draw.choice(files)
        others = [f.read_bytes() for f in files if f.suffix == file.suffix and f != file][:3]
        data, told = damaged_bytes(draw, file.read_bytes(), others)
        file.write_bytes(data)
        return f"{file.relative_to(folder)}: {told}"

    return damage


def replaced(names: Callable[[Path], list[Path]], name: str, data: bytes) -> Callable[[Random, Path], str]:
    """The files are gone, and one of this name and content is there."""

    def damage(draw: Random, folder: Path) -> str:
        for file in names(folder):
            file.unlink()
        (folder / name).write_bytes(data)
        return ""

    return damage


def another_kind(names: Callable[[Path], list[Path]] = held) -> Callable[[Random, Path], str]:
    """One of the files is a pipe, a device, a huge sparse file, a folder, empty, another's content, or gone."""

    def damage(draw: Random, folder: Path) -> str:
        files = names(folder)
        file = draw.choice(files)
        how = draw.choice(
            ["pipe", "/dev/zero", "/dev/full", "sparse", "folder", "empty", "gone", "other", "loop", "outside"]
        )
        other = draw.choice(files).read_bytes()
        become(file, how, other)
        return f"{file.relative_to(folder)} is {how}"

    return damage


def become(file: Path, how: str, other: bytes = b"") -> None:
    """Put something of another kind in the place of a file."""
    file.unlink()
    if how == "pipe":
        os.mkfifo(file)
    elif how.startswith("/dev"):
        file.symlink_to(how)
    elif how == "sparse":
        with file.open("wb") as stream:
            stream.truncate(200 * 10**9)
    elif how == "folder":
        file.mkdir()
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "outside":
        file.symlink_to(Path.cwd().parent / OUTSIDE)
    elif how in ("empty", "other"):
        file.write_bytes(other if how == "other" else b"")


def with_header(draw: Random, data: bytes) -> tuple[bytes, str]:
    """A safetensors file with a damaged structure in its header, whose length is mended."""
    size = int.from_bytes(data[:8], "little")
    header, told = damaged(draw, json.loads(data[8 : 8 + size]))
    return joined(dump_json(header), data[8 + size :]), told


def joined(header: str, content: bytes) -> bytes:
    """A safetensors file of a header and tensors' bytes."""
    head = header.encode("utf-8", "surrogatepass")
    return len(head).to_bytes(8, "little") + head + content


def metadata_of(data: bytes) -> Any:
    """The header of a safetensors file."""
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
