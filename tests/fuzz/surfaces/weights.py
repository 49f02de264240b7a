"""Weights files of trunks: ``.safetensors`` and ``.pth``, by ``gn.backbone`` and ``garnish info``."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import garnish as gn

from ..damage_files import another_kind, any_bytes, become, joined, metadata_of, with_header
from ..odd_values import EVIL
from ..specimens import TRUNKS, write_trunk
from ..surface import Damage, Surface
from ..verdicts import WrongReading


class Weights(Surface):
    """The weights of two trunks in two formats, and in a wrapped one."""

    name: ClassVar[str] = "weights"

    def make(self, folder: Path) -> None:
        for short in TRUNKS:
            tensors = load_file(write_trunk(short, folder / f"{short}_st"))
            for form, content in (("pth", tensors), ("wrapped", {"state_dict": tensors, "meta": {"epoch": 1}})):
                (folder / f"{short}_{form}").mkdir()
                torch.save(content, folder / f"{short}_{form}" / "trunk.pth")
            old = folder / f"{short}_old"
            old.mkdir()
            torch.save(tensors, old / "trunk.pth", _use_new_zipfile_serialization=False)
            for specimen in folder.glob(f"{short}_*"):
                (specimen / "short").write_text(short)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(3.0, any_bytes(_files)), (0.6, another_kind(_files)), (2.0, _header), (1.0, _pickled)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        file = _files(folder)[0] if _files(folder) else folder / "trunk.safetensors"
        name, options = TRUNKS[(folder / "short").read_text()]
        made = gn.backbone(name, draw.choice([file.name, str(file)]), options=options)
        tensors = made.frozen_tensors()
        odd = [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
        if odd:
            raise WrongReading(f"{odd[0]} is not finite")
        if file.suffix == ".safetensors":
            try:
                told = load_file(file)
            except (SafetensorError, OSError) as error:
                raise WrongReading(f"safetensors refuses the file ({error}), and it was read") from error
            for name, tensor in told.items():
                same = [
                    t for n, t in tensors.items() if n == name or (name not in tensors and t.numel() == tensor.numel())
                ]
                if not any(torch.equal(t.flatten(), tensor.to(t.dtype).flatten()) for t in same):
                    raise WrongReading(f"{name} of the file is nowhere in the trunk")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("trunk.*"))


def _header(draw: Random, folder: Path) -> str:
    file = folder / "trunk.safetensors"
    if not file.exists():
        return any_bytes(_files)(draw, folder)
    data, told = with_header(draw, file.read_bytes())
    file.write_bytes(data)
    return f"header{told}"


def _pickled(draw: Random, folder: Path) -> str:
    """A pickle of another object than named tensors."""
    content = draw.choice(
        [
            None,
            1,
            [],
            {},
            {"a": 1},
            {1: torch.ones(2)},
            {"model": {}},
            {"model": {"model": {"model": {}}}},
            "x",
            torch.ones(3),
        ]
    )
    for file in folder.glob("trunk.*"):
        file.unlink()
    torch.save(content, folder / "trunk.pth")
    return f"a pickle of {content!r:.60}"


def _replaced(data: bytes) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        for file in folder.glob("trunk.*"):
            file.unlink()
        (folder / "trunk.pth").write_bytes(data)
        return ""

    return damage


def _evil(draw: Random, folder: Path) -> str:
    return _replaced((folder / EVIL).read_bytes())(draw, folder)


def _became(how: str) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        become(next(iter(folder.glob("trunk.*"))), how)
        return how

    return damage


def _many(draw: Random, folder: Path) -> str:
    for file in folder.glob("trunk.*"):
        file.unlink()
    entries = {f"t{i}" * 20: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    (folder / "trunk.safetensors").write_bytes(joined(json.dumps(entries), b""))
    return ""


def _licence(draw: Random, folder: Path) -> str:
    file = folder / "trunk.safetensors"
    if file.exists():
        data = file.read_bytes()
        header = metadata_of(data) | {"__metadata__": {"license": "free\x1b[2J\n" * 1000}}
        file.write_bytes(joined(json.dumps(header), data[8 + int.from_bytes(data[:8], "little") :]))
    else:
        (folder / "README.md").write_text("Licence: \x1b[2J" + "x" * 10**6)
    return ""


def _nan(draw: Random, folder: Path) -> str:
    file = next(iter(folder.glob("trunk.*")))
    tensors = load_file(file) if file.suffix == ".safetensors" else {"a": torch.ones(1)}
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    file.unlink()
    torch.save(tensors, folder / "trunk.pth")
    return ""


def _deep() -> bytes:
    return b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."


CRAFTED: dict[str, Damage] = {
    "evil": _evil,
    "deep": _replaced(_deep()),
    "plain pickle": _replaced(pickle.dumps({"a": 1})),
    "memo": _replaced(b"\x80\x02" + b"]q\x00" + b"h\x00a" * 1000 + b"."),
    "text": _replaced(b"hello"),
    "empty": _replaced(b""),
    "pipe": _became("pipe"),
    "zero": _became("/dev/zero"),
    "sparse": _became("sparse"),
    "folder": _became("folder"),
    "many": _many,
    "licence": _licence,
    "nan": _nan,
}
