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

#: Section → keys of it that are overridden, beside itself.
_KEYS: dict[str, str] = {
    "backbone": ".name .weights .options.depth .options.img_size .taps .drop_path .x .options",
    "adapter": ".rank .alpha .layers .0.rank .0.bottleneck .0.scale .dropout .9.rank ..rank",
    "head": ".channels .seg .0 .dropout .name",
    "tasks": ".seg .seg.dice .seg.classes .depth.max_metres .x.weight .seg.class_weights .seg.weight .seg.f1_class"
    " .seg.f1_tolerance_px .seg.focal_gamma .depth.weight .seg.x",
    "data": ".images .path .tasks.seg.classes .tasks.seg.ignore .tasks.depth.unit .every .0 .splits .tasks.seg.labels"
    " .tasks.seg.map .tasks.depth.scale .tasks.depth.invalid .layout .tasks .name",
    "train": ".lr .steps .epochs .batch_size .eval_size .log .seed .augment .augment.size .clip .augment.scale .balance"
    " .precision .devices .warmup .weight_decay .schedule .patience .best_by .cache .cache_gb .variants .accumulate"
    " .eval_every .eval_batch_size .eval_limit .save_every .log_every .memory_gb .check_pictures .workers .head_lr"
    " .strategy ..lr .lr.x .augment.flip .augment.rotate_degrees .augment.colour .accelerator .checkpointing",
    "onto": "",
    "out": "",
    "compare": ".seeds",
    "base": "",
}
_RECIPE = "backbone adapter head tasks data train train train onto out compare base"
_SHARED = "--json --help --debug --nonsense -x -- --weights --device --tasks --out"
#: Its words, the sections that it takes, and its options, of each command.
_VERBS: tuple[tuple[str, str, str], ...] = (
    (f"train --config {RECIPE} --print-config", _RECIPE, "--resume --config --quiet --onto"),
    (f"train --config {RECIPE} --quiet", _RECIPE, "--resume --config --json --onto"),
    (
        f"compare --config {RECIPE} --dry-run --out out/compared",
        _RECIPE,
        "--adapters --seeds --rates --reference-rates --widen --references --controls --jobs --held-out-every --store"
        " --title --data-licence",
    ),
    ("info vit_tiny_patch16_224 --size 32,32", "adapter head tasks", "--size"),
    (
        "plan vit_tiny_patch16_224 --tasks seg=Semantic --tasks.seg.classes 3 --methods LoRA,SSF",
        "head tasks",
        "--size --budget --bytes --memory --step-time --batch-size --methods",
    ),
    (
        "eval b --data data.yaml --split val",
        "data",
        "--size --every --limit --batch-size --split --thresholds-on --match-classes",
    ),
    ("check --data data.yaml", "data", "--split --limit"),
    ("predict b street.png", "", "--tasks"),
    ("merge b", "", "--task"),
    ("methods", "", "--json"),
)
_SHARES = (3, 4, 2, 2, 1, 3, 2, 2, 1, 0.3)
_SOUND = (
    *("1", "2", "8", "0", "0.5", "1e-4", "10", "true", "false", "null", "32,32", "[32, 48]", "LoRA", "SSF"),
    *("LinearHead", "csv", "cosine", "poly", "val", "train", "seg", "depth", "seg,depth", "b", "data.yaml", "out/x"),
    *("10%", "1MB", "2x", "{name: LoRA, rank: 1}", "[qkv, fc1]", "cpu", "refuse", "32-true", "Uncertainty"),
)


class Overrides(Surface):
    """A recipe, its data, a bundle; the words that are given are in ``words.json``."""

    name: ClassVar[str] = "overrides"
    names_places: ClassVar[bool] = True
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
    base, sections, options = draw.choices(_VERBS, _SHARES)[0]
    words = base.split()
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if sections and draw.random() < 0.7:
            section = draw.choice(sections.split())
            added = [f"--{section}{draw.choice(['', *_KEYS[section].split()])}", _word(draw)]
        else:
            some = [*options.split() * 2, *_SHARED.split()]
            added = [draw.choice(some), *([_word(draw)] if draw.random() < 0.8 else [])]
        if draw.random() < 0.15 and len(added) == 2:
            added = [f"{added[0]}={added[1]}"]
        words += added
    if draw.random() < 0.1:
        words[draw.randrange(len(words))] = _word(draw)
    if words[0] in ("info", "plan"):  # who names a giant there asks for it
        words = [word.replace("vit_giant_patch14_dinov2", "vit_tiny_patch16_224") for word in words]
    _write(folder, words)
    return " ".join(word if len(word) < 60 else f"{word[:40]}…({len(word)})" for word in words)


def _word(draw: Random) -> str:
    if draw.random() < 0.3:
        return draw.choice(_SOUND)
    value: Any = draw.choice(draw.choice([NUMBERS, TEXTS, TEXTS, SHAPES, YAML_ONLY]))
    text = value.text if isinstance(value, Raw) else value if isinstance(value, str) else dump_yaml(value).strip()
    return text[:100_000].replace("\x00", "")  # a system passes no zero in a word, and no longer one


def _write(folder: Path, words: list[str]) -> None:
    if words[0] in ("train", "predict", "merge") and not any(word.startswith("--out") for word in words):
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
    [
        "info",
        "vit_tiny_patch16_224",
        "--tasks",
        "seg=Semantic",
        "--tasks.seg.classes",
        "255",
        "--head",
        "UPerHead",
        "--size",
        "32,32",
    ],
    ["plan", "vit_tiny_patch16_224", "--tasks", "seg=Semantic", "--tasks.seg.classes", "19", "--budget", "nan"],
    ["plan", "vit_tiny_patch16_224", "--tasks", "seg=Semantic", "--tasks.seg.classes", "19", "--budget", "1e400%"],
    ["check", "--data", "/"],
    ["\x1b[2J"],
    ["info", "\x1b[2J"],
    ["info", "b\x1b[2J/x"],
    ["info", "no\nsuch/bundle"],
]
