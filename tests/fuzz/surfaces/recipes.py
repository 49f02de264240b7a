"""Recipes: the text and the nodes of YAML, read by every verb that takes one, up to a step of training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import yaml

from garnish.files.strict_yaml import parse_yaml

from ..damage_files import another_kind, any_bytes, become
from ..damage_values import damaged, dump_yaml
from ..odd_values import YAML_ONLY, Raw
from ..specimens import DESCRIPTION, TRUNK, TRUNKS, write_set, write_trunk
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from ..worker import command

RECIPE = "r.yaml"
_TRAIN = {
    "steps": 1,
    "batch_size": 2,
    "workers": 0,
    "log": ["csv"],
    "check_pictures": 1,
    "devices": 1,
    "accelerator": "cpu",
}


def recipe(short: str) -> dict[str, Any]:
    """A recipe of one step on :func:`write_set`."""
    name, options = TRUNKS[short]
    return {
        "backbone": {"name": name, "weights": TRUNK, "options": options},
        "adapter": {"name": "LoRA", "rank": 2, "layers": ["proj"]}
        if short == "mit"
        else [{"name": "AdaptFormer", "bottleneck": 2}],
        "head": {"seg": {"name": "SegFormerHead", "channels": 4}, "depth": "LinearHead"}
        if short == "mit"
        else "LinearHead",
        "tasks": {"seg": {"dice": 1.0, "class_weights": [1, 2, 1]}, "depth": {"weight": 0.5}},
        "data": DESCRIPTION,
        "train": _TRAIN | {"lr": 1e-3, "augment": {"size": [32, 32], "flip": 0.5}, "balance": {"name": "Uncertainty"}},
        "out": "out/run",
    }


def scenes() -> dict[str, Any]:
    """A recipe on procedural scenes, with a section for ``compare``."""
    name, options = TRUNKS["mit"]
    return {
        "backbone": {"name": name, "weights": TRUNK, "options": options},
        "adapter": "LoRA",
        "head": "LinearHead",
        "tasks": ["seg", "depth"],
        "data": {"name": "scenes", "train": 2, "val": 1, "test": 1, "size": 32},
        "train": _TRAIN | {"eval_every": 1, "epochs": 1, "seed": 3, "schedule": "cosine", "clip": 0.5},
        "compare": {
            "title": "tiny",
            "adapters": "LoRA(rank=2),[LoRA+NormTuning]",
            "seeds": 1,
            "rates": [1e-3],
            "widen": 0,
            "references": ["frozen"],
            "jobs": 1,
            "pictures": False,
            "out": "out/compared",
            "data_licence": "CC0-1.0",
        },
        "out": "out/run",
    }


class Recipes(Surface):
    """Three recipes with their trunk and pictures; ``--print-config`` prints what reads the same."""

    name: ClassVar[str] = "recipes"
    names_places: ClassVar[bool] = True
    share: ClassVar[float] = 1.8

    def make(self, folder: Path) -> None:
        for name, plain, short in (
            ("mit", recipe("mit"), "mit"),
            ("vit", recipe("vit"), "vit"),
            ("scenes", scenes(), "mit"),
        ):
            write_trunk(short, folder / name)
            if name != "scenes":
                write_set(folder / name)
            if name == "scenes":
                plain["train"].pop("epochs")
            (folder / name / RECIPE).write_text(dump_yaml(plain))

    def damages(self) -> Sequence[tuple[float, Damage]]:
        only = lambda folder: [folder / RECIPE]  # noqa: E731
        return [(1.5, any_bytes(only)), (0.2, another_kind(only)), (6.0, _structure)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        way = draw.choice(["print", "print", "train", "train", "compare"])
        if way == "train":
            command("train", "--config", RECIPE, "--quiet", "--out", "out/run")
        elif way == "compare":
            command("compare", "--config", RECIPE, "--dry-run", "--out", "out/compared")
        else:
            told = command("train", "--config", RECIPE, "--print-config")
            resolved = parse_yaml(told)
            Path("out").mkdir(exist_ok=True)
            Path("out/again.yaml").write_text(told)
            shutil.copy("out/again.yaml", "again.yaml")
            try:
                again = parse_yaml(command("train", "--config", "again.yaml", "--print-config"))
            finally:
                Path("again.yaml").unlink()
            if repr(resolved) != repr(again):  # as text, for nan is not nan
                raise WrongReading("the printed recipe reads as another")
            _as_told(Path(RECIPE).read_text(), resolved)


def _as_told(text: str, resolved: Any) -> None:
    """Plain options of sections that are mappings are as the file says them."""
    try:
        said = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return
    for section in ("train", "backbone"):
        given = said.get(section) if isinstance(said, dict) else None
        for key, value in (given or {}).items() if isinstance(given, dict) else ():
            found = resolved[section].get(key, value)
            if isinstance(value, int | float) and isinstance(found, int | float) and value != found:
                raise WrongReading(f"{section}.{key}: {value!r} was read as {found!r}")


def _structure(draw: Random, folder: Path) -> str:
    plain = parse_yaml((folder / RECIPE).read_text())
    tree, told = damaged(draw, plain, yaml=True)
    (folder / RECIPE).write_bytes(dump_yaml(tree).encode("utf-8", "surrogatepass"))
    return told


def _set(path: str, value: Any) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        tree: Any = parse_yaml((folder / RECIPE).read_text())
        here = tree
        *way, last = path.split(".")
        for key in way:
            if not isinstance(here.get(key), dict):
                here[key] = {"name": here[key]} if isinstance(here.get(key), str) else {}
            here = here[key]
        here[last] = value
        (folder / RECIPE).write_text(dump_yaml(tree))
        return ""

    return damage


def _text(text: str) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        (folder / RECIPE).write_text(text)
        return ""

    return damage


def _long(draw: Random, folder: Path) -> str:
    with (folder / RECIPE).open("w") as file:
        file.write("tasks:\n" + "".join(f"  t{i}: {{weight: 1}}\n" for i in range(1_000_000)))
    return ""


_BOMB = next(value for value in YAML_ONLY if isinstance(value, Raw) and len(value.text) > 300)

CRAFTED: dict[str, Damage] = {
    **{
        f"aliases at {place}": _set(place, _BOMB)
        for place in (
            *("backbone", "backbone.name", "backbone.weights", "backbone.options", "adapter", "adapter.rank", "head"),
            *(
                "tasks",
                "tasks.seg",
                "data",
                "data.tasks",
                "data.images",
                "train",
                "train.lr",
                "train.log",
                "onto",
                "out",
            ),
            *("base", "compare", "compare.adapters", "compare.title", "unknown", "train.augment", "train.balance"),
        )
    },
    **{
        f"itself at {place}": _set(place, Raw("&a [*a]"))
        for place in (
            "backbone",
            "adapter",
            "head",
            "tasks",
            "data",
            "train",
            "train.log",
            "onto",
            "out",
            "compare",
            "base",
        )
    },
    **{
        f"log {name}": _set("train.log", [name])
        for name in (
            *(
                "bait.Logger",
                "unittest.__main__.x",
                "this.x",
                "antigravity.fly",
                "os.system",
                "builtins.exec",
                "a.",
                ".a",
            ),
            *("subprocess.Popen", "pdb.Pdb", "code.InteractiveConsole", "lightning.fabric.loggers.CSVLogger", "bait"),
        )
    },
    "vit/pickle": _set("backbone.options.checkpoint_path", "trap.evil.pth"),
    "vit/config": _set("backbone.options", {"pretrained": True, "pretrained_cfg": {"file": "trap.evil.pth"}}),
    "vit/overlay": _set("backbone.options", {"pretrained": True, "pretrained_cfg_overlay": {"file": "trap.evil.pth"}}),
    "vit/cache": _set("backbone.options.cache_dir", "../elsewhere"),
    "timestamp": _set("train.lr", Raw("!!timestamp 99")),
    "vit/nested tasks": _set("tasks", [["seg"]]),
    "vit/unit": _set("data.tasks", {"depth": {"task": "Depth", "labels": "depth/{split}/{name}.png", "unit": ["a"]}}),
    "vit/names": _set("data.images", "a{name}b{name}"),
    "size": _set("train.eval_size", Raw("0,64")),
    "zero size": _set("train.eval_size", [0, 64]),
    "epochs": _set("train.epochs", 1e308),
    "seed": _set("train.seed", 10**26),
    "negative seed": _set("train.seed", -1),
    "reduction": _set("adapter", {"name": "Pfeiffer", "reduction": float("nan")}),
    "alpha": _set("adapter", {"name": "LoRA", "alpha": float("nan")}),
    "no weights": _set("backbone.weights", ""),
    "pipe": _set("backbone.weights", "trap.pipe"),
    "device": _set("backbone.weights", "/dev/zero"),
    "sparse": _set("backbone.weights", "trap.sparse.safetensors"),
    "vit/depth": _set("backbone.options.depth", 100_000),
    "mit/depths": _set("backbone.options.depths", [100_000, 1, 1, 1]),
    "vit/width": _set("backbone.options.embed_dim", 10**6),
    "batch": _set("train.batch_size", 10**9),
    "workers": _set("train.workers", 10**5),
    "devices": _set("train.devices", 10**5),
    "crop": _set("train.augment.size", [10**6, 10**6]),
    "scale": _set("train.augment.scale", [1e-9, 1e9]),
    "variants": _set("train.variants", 10**12),
    "scenes": _set("data", {"name": "scenes", "train": 10**12, "val": 1, "test": 1, "size": 32}),
    "scene size": _set("data", {"name": "scenes", "train": 2, "val": 1, "test": 1, "size": 10**6}),
    "out": _set("out", "../../elsewhere"),
    "onto": _set("onto", ["trap.pipe"]),
    "base": _set("base", "/"),
    "cache folder": _set("train.cache", "../elsewhere"),
    "data pipe": _set("data", "trap.pipe"),
    "data root": _set("data", "/"),
    "ten thousand methods": _set("adapter", [{"name": "LoRA"}] * 10_000),
    "long": _long,
    "deep": _text("a: " + "[" * 100_000),
    "deep map": _text("{a: " * 20_000),
    "many aliases": _text("x: &a 1\ny: [" + "*a, " * 500_000 + "]\n"),
    "merges": _text("a: &a {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [{'*a, ' * 9} *a]}}\n" for i in range(10_000))),
    "tag": _text("!!python/object/apply:os.system ['touch ran']"),
    "documents": _text("a: 1\n---\nb: 2\n"),
    "fifo": lambda draw, folder: become(folder / RECIPE, "pipe") or "",
    "zero": lambda draw, folder: become(folder / RECIPE, "/dev/zero") or "",
    "sparse file": lambda draw, folder: become(folder / RECIPE, "sparse") or "",
    "json": lambda draw, folder: ((folder / RECIPE).write_text(json.dumps(scenes())) and "") or "",
}
