"""Words of the command line: overrides of every section, and the options of verbs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from PIL import Image

import garnish as gn

from ..damage_values import dump_yaml
from ..odd_values import NUMBERS, SHAPES, TEXTS, YAML_ONLY, Raw
from ..specimens import CLASSES, moved, picture, trunk, write_set, write_trunk
from ..surface import Damage, Surface
from ..worker import command
from .recipes import RECIPE, recipe

_KEYS = (
    *("backbone", "backbone.name", "backbone.weights", "backbone.options.depth", "backbone.taps", "backbone.drop_path"),
    *(
        "adapter",
        "adapter.rank",
        "adapter.alpha",
        "adapter.layers",
        "adapter.0.rank",
        "head",
        "head.channels",
        "head.seg",
    ),
    *("tasks", "tasks.seg", "tasks.seg.dice", "tasks.seg.classes", "tasks.depth.max_metres", "tasks.x.weight", "data"),
    *(
        "data.images",
        "data.path",
        "data.tasks.seg.classes",
        "data.tasks.seg.ignore",
        "data.tasks.depth.unit",
        "data.every",
    ),
    *(
        "train.lr",
        "train.steps",
        "train.epochs",
        "train.batch_size",
        "train.eval_size",
        "train.log",
        "train.seed",
        "onto",
    ),
    *("train.augment.size", "train.augment.scale", "train.balance", "train.precision", "train.devices", "train.warmup"),
    *("train.clip", "train.weight_decay", "train.schedule", "train.patience", "train.best_by", "train.cache", "out"),
    *("train", "compare", "base", "train..lr", "train.lr.x", "data.0", "", "--", "head.0", "tasks.seg.class_weights"),
)
#: The commands that overrides are given to, without them.
_VERBS: dict[str, list[str]] = {
    "train": ["--config", RECIPE, "--print-config"],
    "train on": ["--config", RECIPE, "--quiet"],
    "info": ["vit_tiny_patch16_224", "--json"],
    "plan": ["--config", RECIPE, "--json"],
    "eval": ["b", "--data", "data.yaml", "--split", "val", "--json"],
    "check": ["--data", "data.yaml"],
    "predict": ["b", "street.png", "--out", "out"],
    "methods": [],
    "merge": ["b", "--out", "out/merged"],
}
_OPTIONS = (
    *("--size", "--tasks", "--every", "--limit", "--batch-size", "--weights", "--device", "--split", "--thresholds-on"),
    *(
        "--json",
        "--budget",
        "--adapters",
        "--match-classes",
        "--config",
        "--data",
        "--out",
        "--help",
        "--debug",
        "--resume",
    ),
    *(
        "--print-config",
        "--nonsense",
        "-x",
        "--",
        "--data.path",
        "--data.images",
        "--data.every",
        "--data.name",
        "--top",
    ),
)


class Overrides(Surface):
    """A recipe, its data, a bundle; the words that are given are in ``words.json``."""

    name: ClassVar[str] = "overrides"
    share: ClassVar[float] = 1.5

    def make(self, folder: Path) -> None:
        one = folder / "one"
        write_trunk("vit", one)
        write_set(one)
        plain = recipe("vit")
        (one / RECIPE).write_text(dump_yaml(plain))
        (one / "data.yaml").write_text(dump_yaml(plain["data"]))
        Image.fromarray(picture()).save(one / "street.png")
        os.chdir(one)
        tasks = {"seg": gn.Semantic(classes=tuple(CLASSES)), "depth": gn.Depth(max_metres=5)}
        moved(gn.adapt(trunk("vit"), gn.LoRA(rank=2), tasks)).save("b")
        os.chdir(folder)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(1.0, _words)]

    def crafted(self) -> Mapping[str, Damage]:
        return {text: _given(words) for text, words in ((" ".join(words)[:80], words) for words in _CRAFTED)}

    def read(self, folder: Path, draw: Random) -> None:
        try:
            command(*json.loads((folder / "words.json").read_text()))
        except SystemExit as asked:
            if asked.code not in (0, None):
                raise


def _words(draw: Random, folder: Path) -> str:
    verb = draw.choice(list(_VERBS))
    words = [verb.split()[0], *_VERBS[verb]]
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if draw.random() < 0.65:
            added = [f"--{draw.choice(_KEYS)}", _word(draw)]
        else:
            added = [draw.choice(_OPTIONS), *([_word(draw)] if draw.random() < 0.8 else [])]
        if draw.random() < 0.15 and len(added) == 2:
            added = [f"{added[0]}={added[1]}"]
        words += added
    if draw.random() < 0.1:
        words[draw.randrange(len(words))] = _word(draw)
    _write(folder, words)
    return " ".join(word if len(word) < 60 else f"{word[:40]}…({len(word)})" for word in words)


def _word(draw: Random) -> str:
    value: Any = draw.choice(draw.choice([NUMBERS, TEXTS, TEXTS, SHAPES, YAML_ONLY]))
    text = value.text if isinstance(value, Raw) else value if isinstance(value, str) else dump_yaml(value).strip()
    return text[:100_000].replace("\x00", "")  # a system passes no zero in a word, and no longer one


def _write(folder: Path, words: list[str]) -> None:
    if "train" in words[:1] and "--out" not in words:
        words += ["--out", "out/run"]
    (folder / "words.json").write_text(json.dumps(words))


def _given(words: list[str]) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        _write(folder, list(words))
        return " ".join(words)[:200]

    return damage


_TRAIN = ["train", "--config", RECIPE, "--quiet"]
_CRAFTED: list[list[str]] = [
    [*_TRAIN, "--train.eval_size", "0,64"],
    [*_TRAIN, "--train.epochs", "1e308"],
    [*_TRAIN, "--train.seed", "100000000000000000000000000"],
    [*_TRAIN, "--adapter", "Pfeiffer", "--adapter.reduction", ".nan"],
    [*_TRAIN, "--adapter", "LoRA", "--adapter.alpha", "nan"],
    [*_TRAIN, "--adapter", "LoRA", "--adapter.alpha", ".nan"],
    [*_TRAIN, "--backbone.weights", ""],
    [*_TRAIN, "--train.log", "bait.Logger"],
    [*_TRAIN, "--train.log", "unittest.__main__.x"],
    [*_TRAIN, "--train.lr", "!!timestamp 99"],
    [*_TRAIN, "--tasks", "[[seg]]"],
    [*_TRAIN, "--data.tasks.depth.unit", "[a]"],
    [*_TRAIN, "--data.images", "a{name}b{name}"],
    [*_TRAIN, "--backbone.options.checkpoint_path", "trap.evil.pth"],
    [*_TRAIN, "--backbone.options.depth", "100000"],
    ["train", "--resume", "trap.pipe"],
    ["train", "--config", "trap.pipe"],
    ["train", "--config", "/dev/zero"],
    ["eval", "b", "--data", "data.yaml", "--split", "val", "--size", "0,64"],
    ["eval", "b", "--data", "data.yaml", "--split", "val", "--size", "100000,100000"],
    ["eval", "b", "--data", "data.yaml", "--split", "val", "--device", "cuda:99"],
    ["eval", "b", "--data", "trap.pipe", "--split", "val"],
    ["predict", "b", "trap.pipe", "--out", "out"],
    ["predict", "trap.pipe", "street.png", "--out", "out"],
    ["predict", "b", "street.png", "--out", "out", "--weights", "trap.pipe"],
    ["predict", "b", "street.png", "--out", "out", "--weights", "/dev/zero"],
    ["predict", "b", "street.png", "--out", "out", "--weights", "trap.evil.pth"],
    ["info", "vit_tiny_patch16_224", "--size", "0,0"],
    ["info", "vit_tiny_patch16_224", "--size", "10000000,10000000"],
    ["info", "vit_tiny_patch16_224", "--adapter", "LoRA", "--adapter.rank", "100000000"],
    ["info", "vit_tiny_patch16_224", "--tasks", "seg=Semantic", "--tasks.seg.classes", "255", "--head", "UPerHead"],
    ["plan", "vit_tiny_patch16_224", "--tasks", "seg=Semantic", "--tasks.seg.classes", "19", "--budget", "nan"],
    ["plan", "vit_tiny_patch16_224", "--tasks", "seg=Semantic", "--tasks.seg.classes", "19", "--budget", "1e400%"],
    ["check", "--data", "/"],
    ["\x1b[2J"],
    ["info", "\x1b[2J"],
    ["info", "b\x1b[2J/x"],
    ["info", "no\nsuch/bundle"],
]
