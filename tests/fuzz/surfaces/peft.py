"""PEFT folders, written by us in every dialect: ``gn.import_peft`` and ``garnish peft import``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

import garnish as gn

from ..damage_files import another_kind, any_bytes, become, damaged_bytes, with_header
from ..damage_values import damaged, dump_json
from ..odd_values import EVIL, PIPE
from ..specimens import CLASSES, moved, picture, trunk, write_trunk
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from ..worker import command

FOLDER = "p"
CONFIG, TENSORS, TASK = "adapter_config.json", "adapter_model.safetensors", "task.json"


class Peft(Surface):
    """LoRA, rsLoRA and DoRA on two trunks in three dialects, with and without our own files beside."""

    name: ClassVar[str] = "peft"
    share: ClassVar[float] = 1.5

    def make(self, folder: Path) -> None:
        seg = {"seg": gn.Semantic(classes=tuple(CLASSES))}
        for name, short, dialect, options in (
            ("timm", "vit", "timm", {}),
            ("four", "mit", "transformers4", {}),
            ("five", "mit", "transformers5", {"rs": True}),
            ("dora", "vit", "transformers5", {"dora": True}),
            ("theirs", "vit", "timm", {}),
        ):
            write_trunk(short, folder / name)
            (folder / name / "short").write_text(short)
            os.chdir(folder / name)
            gn.export_peft(moved(gn.adapt(trunk(short), gn.LoRA(rank=2, **options), seg)), FOLDER, dialect=dialect)
            if name == "theirs":
                (folder / name / FOLDER / TASK).unlink()
        os.chdir(folder)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        files = lambda folder: sorted((folder / FOLDER).iterdir())  # noqa: E731
        return [(2.0, any_bytes(files)), (0.7, another_kind(files)), (4.0, _config), (3.0, _task), (2.0, _header)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        with_own = (folder / FOLDER / TASK).exists()
        if with_own and draw.random() < 0.2:
            command("peft", "import", FOLDER, "--out", "out")
            return
        options: dict[str, Any] = {}
        if not with_own or draw.random() < 0.3:
            options["backbone"] = trunk(Path("short").read_text())
        if not with_own:
            options["tasks"] = {"seg": gn.Semantic(classes=3)}
        model = gn.import_peft(FOLDER, **options).eval()
        maps = model.predict(picture())
        for task in model.tasks:
            if not torch.isfinite(maps[task].float()).all():
                raise WrongReading(f"{task}: the map is not finite")
        gn.export_peft(model, "out/again", dialect="timm")
        again = gn.import_peft("out/again", backbone=trunk(Path("short").read_text())).eval()
        theirs = again.predict(picture())
        for task in model.tasks:
            if not torch.allclose(maps[task].float(), theirs[task].float(), atol=1e-3, rtol=1e-3):
                raise WrongReading(f"{task}: the map is another after writing and reading")


# ---- damage -----------------------------------------------------------------------------------------------------


def _json(name: str) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        file = folder / FOLDER / name
        if not file.exists():
            return any_bytes(lambda f: sorted((f / FOLDER).iterdir()))(draw, folder)
        tree, told = damaged(draw, json.loads(file.read_text()), keys=_KEYS)
        file.write_bytes(dump_json(tree).encode("utf-8", "surrogatepass"))
        return f"{name}{told}"

    return damage


_KEYS = (
    *("rank_pattern", "alpha_pattern", "target_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
    *(
        "use_rslora",
        "use_dora",
        "bias",
        "fan_in_fan_out",
        "exclude_modules",
        "target_parameters",
        "checkpoint_path",
        "x",
    ),
    *(
        "init_lora_weights",
        "peft_type",
        "task_type",
        "lora_alpha",
        "r",
        "auto_mapping",
        "revision",
        "\x1b[31m",
        "loftq_config",
    ),
)
_config, _task = _json(CONFIG), _json(TASK)


def _header(draw: Random, folder: Path) -> str:
    file = folder / FOLDER / draw.choice([TENSORS, "heads.safetensors"])
    if draw.random() < 0.5:
        data, told = with_header(draw, file.read_bytes())
    else:
        data, told = damaged_bytes(draw, file.read_bytes())
    file.write_bytes(data)
    return f"{file.name}{told}"


def _edited(name: str, edit: Callable[[Any], object]) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        file = folder / FOLDER / name
        if file.exists():
            tree = json.loads(file.read_text())
            edit(tree)
            file.write_text(dump_json(tree))
        return ""

    return damage


def _set(**values: Any) -> Damage:
    return _edited(CONFIG, lambda tree: tree.update(values))


def _with_tensors(change: Callable[[dict[str, torch.Tensor]], object], **values: Any) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        file = folder / FOLDER / TENSORS
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})
        return _set(**values)(draw, folder)

    return damage


def _pair(name: str, rank: int = 2) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.ones(rank, 16)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.ones(16, rank)

    return change


def _became(name: str, how: str) -> Damage:
    return lambda draw, folder: become(folder / FOLDER / name, how) or ""


def _many(tensors: dict[str, torch.Tensor]) -> None:
    for number in range(20_000):
        _pair(f"blocks.{number}.attn.qkv", 1)(tensors)


def _grown(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in list(tensors.items()):
        tensors[name] = torch.full_like(tensor, 1e38 if tensor.dtype == torch.float32 else 6e4)


_PATTERNS = {
    "long": r".*.*.*.*.*X",
    "escaped": r"(.|.|.|\\)*X",
    "verbose": "(?x)( . | . | . ) *X",
    "twice": "(a|a)*$",
    "nested": "(a+)+$",
    "back": r"(.*)\1\1\1X",
    "ahead": "(?=(.*.*.*.*X))",
    "lazy": "(.*?){20}X",
    "count": "(?:.{0,999}){999}X",
    "counted": "a{0,65535}" * 30,
    "unclosed": "(",
    "conditional": "(a)?(?(1)b|c)*X",
    "huge": "x|" * 100_000,
    "groups": "(" * 90 + ")" * 90,
    "spaces": "( *)*X",
    "class": r"([\s\S]|[\w\W])*X",
}

CRAFTED: dict[str, Damage] = {
    **{f"target {name}": _set(target_modules=pattern) for name, pattern in _PATTERNS.items()},
    **{
        f"target {name} on a long name": _with_tensors(_pair("a" * 400), target_modules=pattern)
        for name, pattern in _PATTERNS.items()
    },
    **{f"rank {name}": _set(rank_pattern={pattern: 2}) for name, pattern in _PATTERNS.items()},
    **{f"exclude {name}": _set(exclude_modules=pattern) for name, pattern in _PATTERNS.items()},
    "many patterns": _set(rank_pattern={f".*.*.*.*.*X{i}": 2 for i in range(3000)}),
    "many alphas": _set(alpha_pattern={f"x{i}": 2 for i in range(100_000)}),
    "flag": _set(rank_pattern={"(?i)a": 2}),
    "flag inside": _set(alpha_pattern={"a(?i)b": 2}),
    "many modules": _set(target_modules=[f"m{i}" for i in range(100_000)]),
    "many tensors": _with_tensors(_many),
    "deep name": _with_tensors(_pair("a." * 20_000 + "b")),
    "huge values": _with_tensors(_grown),
    "alpha nan": _set(lora_alpha=float("nan")),
    "alpha inf": _set(lora_alpha=1e308),
    "alpha text": _set(lora_alpha="1e5"),
    "rank zero": _set(r=0),
    "rank huge": _set(r=10**26),
    "base": _set(base_model_name_or_path=EVIL),
    "auto mapping": _set(auto_mapping={"base_model_class": "bait", "parent_library": "bait"}),
    "config fifo": _became(CONFIG, "pipe"),
    "config zero": _became(CONFIG, "/dev/zero"),
    "tensors fifo": _became(TENSORS, "pipe"),
    "tensors zero": _became(TENSORS, "/dev/zero"),
    "tensors sparse": _became(TENSORS, "sparse"),
    "heads fifo": _became("heads.safetensors", "pipe"),
    "heads sparse": _became("heads.safetensors", "sparse"),
    "task checkpoint": _edited(TASK, lambda t: t["backbone"]["options"].update(checkpoint_path=EVIL)),
    "task depth": _edited(TASK, lambda t: t["backbone"]["options"].update(depth=100_000)),
    "task weights": _edited(TASK, lambda t: t["backbone"].update(weights_source=PIPE)),
    "task channels": _edited(
        TASK, lambda t: t["tasks"]["seg"].update(head={"name": "UPerHead", "options": {"channels": 10**6}})
    ),
    "task classes": _edited(TASK, lambda t: t["tasks"]["seg"]["options"].update(classes=250)),
}
