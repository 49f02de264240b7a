"""Exported folders: ``garnish.runtime.Session`` and its command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np

from garnish.errors import GarnishError
from garnish.runtime import Session
from garnish.runtime.command import runtime_main

from ... import exported_folders as made
from ..damage_files import another_kind, any_bytes, damaged_bytes
from ..damage_values import damaged, dump_json
from ..specimens import picture
from ..surface import Damage, Surface
from ..verdicts import WrongReading

FOLDER = "e"


class Exported(Surface):
    """A graph with a bundle inside, and one that takes bundles, with two of them."""

    name: ClassVar[str] = "exported"

    def make(self, folder: Path) -> None:
        made.merged(folder / "merged" / FOLDER)
        several = made.with_inputs(folder / "inputs" / FOLDER)
        for slot, task in enumerate(("seg", "depth")):
            decoding = made.DECODINGS[task]
            made.add_bundle(several, task, task, decoding, made.bundle_tensors(slot, 3, decoding, slot), slot)
        made.reseal(several)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        files = lambda folder: sorted((folder / FOLDER).iterdir())  # noqa: E731
        return [(1.0, any_bytes(files)), (1.0, another_kind(files)), (4.0, _facts), (2.0, _tensors)]

    def crafted(self) -> Mapping[str, Damage]:
        return {
            "a bundle's name that leads out": _renamed,
            "inputs/a graph of another": lambda _, folder: _swap(folder / FOLDER / "seg.json", graph="1" * 64),
            "merged/thousands of classes": lambda _, folder: _classes(folder, 70_000),
            "merged/two tasks of one output": lambda _, folder: _swap(folder / FOLDER / "export.json", tasks=_twice()),
        }

    def read(self, folder: Path, draw: Random) -> None:
        session = Session(FOLDER, threads=1)
        for bundle in session.bundles or (None,):
            maps = session.predict(picture(), bundle)
            for task, decoded in maps.maps.items():
                if decoded.shape[-2:] != maps.picture.shape[:2] or not np.isfinite(decoded).all():
                    raise WrongReading(f"{task}: the map is {decoded.shape}, or not finite")
            maps.write("out")
        if runtime_main([FOLDER, "--list", *["--json"] * (draw.random() < 0.5)]) != 0:
            raise WrongReading("the folder is predicted from, and not listed")


def _facts(draw: Random, folder: Path) -> str:
    """A manifest with an odd value, and sums that say that it is so."""
    file = draw.choice(sorted((folder / FOLDER).glob("*.json")))
    tree, told = damaged(draw, json.loads(file.read_text()), keys=("output", "names", "certificate", "x"))
    file.write_bytes(dump_json(tree).encode("utf-8", "surrogatepass"))
    made.reseal(folder / FOLDER)
    return f"{file.name}{told}"


def _tensors(draw: Random, folder: Path) -> str:
    """A graph or a file of adapters with damaged bytes, and a manifest that says that it is so."""
    file = draw.choice([f for f in sorted((folder / FOLDER).iterdir()) if f.suffix in (".onnx", ".onnx_adapter")])
    data, told = damaged_bytes(draw, file.read_bytes())
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    if file.suffix == ".onnx":
        _swap(folder / FOLDER / "export.json", sha256=digest)
        for bundle in (folder / FOLDER).glob("*.onnx_adapter"):
            _swap(bundle.with_suffix(".json"), graph=digest)
    else:
        _swap(file.with_suffix(".json"), sha256=digest)
    return f"{file.name}{told}"


def _swap(file: Path, **changes: Any) -> str:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    made.reseal(file.parent)
    return f"{file.name}: {', '.join(changes)}"


def _renamed(_: Random, folder: Path) -> str:
    """A bundle beside the folder must not be reached by a name."""
    (folder / "outside.json").write_text("{}")
    try:
        Session(FOLDER).tasks("../outside")
    except GarnishError:
        return ""
    raise WrongReading("a bundle's name led out of its folder")


def _classes(folder: Path, count: int) -> str:
    told = made.told_tasks({"seg": made.DECODINGS["seg"]})
    told["seg"]["decoding"]["options"]["names"] = [f"class {k}" for k in range(count)]
    told["seg"]["channels"] = count
    return _swap(folder / FOLDER / "export.json", tasks=told)


def _twice() -> dict[str, Any]:
    told = made.told_tasks(made.DECODINGS)
    told["again"] = told["seg"]
    return told
