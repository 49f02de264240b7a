"""Data descriptions: ``data.yaml`` and list files, by ``gn.folder`` and ``garnish check``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import garnish as gn
from garnish.files.strict_yaml import parse_yaml

from ..damage_files import another_kind, any_bytes, become
from ..damage_values import damaged, dump_yaml
from ..odd_values import YAML_ONLY, Raw
from ..specimens import CLASSES, write_set
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from ..worker import command
from .labels import check_sample

FILE, LIST = "data.yaml", "sets/train.txt"


def _full() -> dict[str, Any]:
    seg = "seg/train/{name}.png"
    return {
        "path": ".",
        "images": "rgb/train/{name}.png",
        "splits": {"train": LIST, "val": LIST},
        "every": {"val": 2},
        "tasks": {
            "seg": {
                "task": "Semantic",
                "labels": ["none/{name}.png", seg],
                "classes": CLASSES,
                "map": {0: 0, 1: 1, 2: 2},
            },
            "depth": {
                "task": "Depth",
                "labels": "depth/train/{name}.png",
                "scale": 0.001,
                "max_metres": 5,
                "invalid": 0,
            },
            "edges": {"task": "Edges", "labels": seg, "from": "boundaries", "protocol": "ods", "max_distance": 0.011},
            "person": {"task": "Saliency", "labels": seg, "positive": [1, 2], "ignore": [255]},
        },
    }


def _folders() -> dict[str, Any]:
    return {
        "images": "rgb/{split}/*.png",
        "splits": {"train": "train", "val": "val"},
        "tasks": {
            "seg": {"task": "Semantic", "labels": "seg/{split}/{name}.png", "classes": 3, "offset": 0, "ignore": 255},
            "depth": {"task": "Depth", "labels": "depth/{split}/{name}.png", "unit": "mm", "max_metres": 5},
        },
    }


class Descriptions(Surface):
    """Two descriptions, of folders and of lists."""

    name: ClassVar[str] = "descriptions"
    share: ClassVar[float] = 1.3

    def make(self, folder: Path) -> None:
        for name, plain in (("lists", _full()), ("folders", _folders())):
            write_set(folder / name)
            (folder / name / FILE).write_text(dump_yaml(plain))
            (folder / name / "sets").mkdir()
            (folder / name / LIST).write_text("p0\np1\n")

    def damages(self) -> Sequence[tuple[float, Damage]]:
        both = lambda folder: [folder / FILE, folder / LIST]  # noqa: E731
        return [(1.5, any_bytes(both)), (0.3, another_kind(both)), (5.0, _structure), (0.7, _listed)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        split = draw.choice(["train", "train", "val"])
        if draw.random() < 0.3:
            command("check", "--data", draw.choice([FILE, "."]), "--split", split)
            return
        made = gn.folder(draw.choice([FILE, str(folder)]), split)
        if not len(made):
            raise WrongReading("no picture")
        for index in range(min(len(made), 3)):
            if not made.picture_file(index).is_file():
                raise WrongReading(f"{made.picture_file(index)} is no picture")
            check_sample(made[index], made.tasks)
            made.key(index)
            made.content(index)


def _structure(draw: Random, folder: Path) -> str:
    tree, told = damaged(draw, parse_yaml((folder / FILE).read_text()), yaml=True, keys=_KEYS)
    (folder / FILE).write_bytes(dump_yaml(tree).encode("utf-8", "surrogatepass"))
    return told


_KEYS = (
    *(
        "layout",
        "path",
        "images",
        "splits",
        "every",
        "tasks",
        "task",
        "labels",
        "kind",
        "ignore",
        "map",
        "others",
        "offset",
    ),
    *(
        "colours",
        "threshold",
        "positive",
        "from",
        "unit",
        "scale",
        "invalid",
        "packed",
        "orientation",
        "axes",
        "flip",
        "classes",
    ),
    *(
        "max_metres",
        "class_weights",
        "weight",
        "f1_class",
        "f1_tolerance_px",
        "processes",
        "\x1b[31m",
        "name",
        "0",
        "train",
    ),
)


def _listed(draw: Random, folder: Path) -> str:
    lines = draw.choice(
        [
            *(
                "../p0\n",
                "/etc/passwd\n",
                "p0\np0\n",
                "\x1b[2J\n",
                "p0 p1\n",
                "\n\n",
                "p0.png\n",
                "{name}\n",
                "*\n",
                "p0\x00\n",
            ),
            *(
                "a" * 300 + "\n",
                "p0\n" * 100_000,
                "x" * 10**7,
                "p0\r\np1\r\n",
                "\ufeffp0\n",
                "./p0\n",
                "p0/\n",
                "~\n",
                "p9\n",
            ),
        ]
    )
    (folder / LIST).write_text(lines)
    return f"the list: {lines[:40]!r}"


def _set(path: str, value: Any) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        tree: Any = parse_yaml((folder / FILE).read_text())
        here = tree
        *way, last = path.split(".")
        for key in way:
            here = here.setdefault(key, {})
        here[last] = value
        (folder / FILE).write_text(dump_yaml(tree))
        return ""

    return damage


def _text(text: str) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        (folder / FILE).write_text(text)
        return ""

    return damage


_BOMB = next(value for value in YAML_ONLY if isinstance(value, Raw) and len(value.text) > 300)

_PLACES = (
    *("path", "images", "splits", "splits.train", "every", "every.val", "tasks", "tasks.seg", "layout", "x"),
    *("tasks.seg.task", "tasks.seg.labels", "tasks.seg.classes", "tasks.seg.ignore", "tasks.depth.unit"),
)

CRAFTED: dict[str, Damage] = {
    **{f"aliases at {place}": _set(place, _BOMB) for place in _PLACES},
    "unit": _set("tasks.depth.unit", ["a"]),
    "names": _set("images", "a{name}b{name}"),
    "many names": _set("images", "{name}" * 30),
    "stars": _set("images", "*" * 40 + "/" + "**/" * 30 + "*.png"),
    "every file": _set("images", "/**/*"),
    "up": _set("images", "../../**/*.png"),
    "up in labels": _set("tasks.seg.labels", "../../{name}.png"),
    "pipe": _set("tasks.seg.labels", "trap.pipe"),
    "device": _set("tasks.seg.labels", "/dev/zero"),
    "classes": _set("tasks.seg.classes", 10**9),
    "many classes": _set("tasks.seg.classes", [f"c{i}" for i in range(10**5)]),
    "control": _set("tasks.seg.classes", ["a\x1b[2J", "b\n", "c"]),
    "map": _set("tasks.seg.map", {10**26: 0}),
    "positive": _set("tasks.seg.ignore", list(range(10**5))),
    "scale": _set("tasks.depth.scale", 1e308),
    "scale nan": _set("tasks.depth.scale", float("nan")),
    "metres": _set("tasks.depth.max_metres", float("inf")),
    "invalid": _set("tasks.depth.invalid", [float("inf"), 10**30]),
    "offset": _set("tasks.seg.offset", 2**63),
    "offset minus": _set("tasks.seg.offset", -(2**63)),
    "packed": _set("tasks.seg.packed", [1, 2**62, 2**63]),
    "processes": _set("tasks.edges.processes", 10**6),
    "layout": _text("layout: PascalContextMultiTask\npath: trap.pipe\n"),
    "layout name": _text("layout: bait.Thing\n"),
    "layout list": _text("layout: [a]\n"),
    "path": _set("path", "$HOME/~/../\x1b[2J"),
    "path list": _set("path", ["a"]),
    "root": _set("path", "/"),
    "list pipe": lambda draw, folder: become(folder / LIST, "pipe") or "",
    "list zero": lambda draw, folder: become(folder / LIST, "/dev/zero") or "",
    "list sparse": lambda draw, folder: become(folder / LIST, "sparse") or "",
    "fifo": lambda draw, folder: become(folder / FILE, "pipe") or "",
    "zero": lambda draw, folder: become(folder / FILE, "/dev/zero") or "",
    "sparse": lambda draw, folder: become(folder / FILE, "sparse") or "",
}
