"""Bundles: ``gn.load`` and the commands that open one. Damage passes the digests where it is sealed anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch

import garnish as gn
from garnish.backbones.weights import is_non_commercial
from garnish.files.regular import read_regular
from garnish.model.model import Model

from ..damage_files import another_kind, any_bytes, become, damaged_bytes, joined, metadata_of, with_header
from ..damage_values import damaged, dump_json
from ..odd_values import EVIL, PIPE
from ..specimens import CLASSES, moved, picture, trunk, write_trunk
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from ..worker import command

BUNDLE = "b"
JSON, WEIGHTS, SUMS = (f"{BUNDLE}/{name}" for name in ("bundle.json", "weights.safetensors", "SHA256SUMS"))
#: What a bundle says that a loaded one need not say again.
_FREE = {"versions", "metrics", "metrics_rounding", "extra", "sha256", "weights_bytes"}


#: The type that it is stored in, and what another copy of the weights may say otherwise.
_FREE_PLACES = {f".{name}" for name in ("dtype", "tuned_as")}
_FREE_PLACES |= {f".backbone.{name}" for name in ("weights_source", "licence", "non_commercial")}


def _models() -> dict[str, tuple[str, Callable[[], Any], dict[str, Any]]]:
    tasks = {"seg": gn.Semantic(classes=tuple(CLASSES)), "depth": gn.Depth(max_metres=5)}
    return {
        "lora": ("vit", lambda: gn.LoRA(rank=2), {"tasks": tasks}),
        "adaptformer": (
            "mit",
            lambda: gn.AdaptFormer(bottleneck=2),
            {"tasks": tasks, "head": gn.SegFormerHead(channels=4)},
        ),
        "norms": ("vit", lambda: [gn.LoRA(rank=1), gn.NormTuning()], {"tasks": {"edges": gn.Edges()}}),
        "upper": ("mit", lambda: gn.SSF(), {"tasks": {"seg": tasks["seg"]}, "head": gn.UPerHead(channels=4)}),
        "shared": ("mit", lambda: gn.MTLoRA(rank=2), {"tasks": tasks, "head": gn.SharedBaseHead(channels=4)}),
    }


class Bundles(Surface):
    """Five bundles with their trunk's weights beside them."""

    name: ClassVar[str] = "bundles"
    share: ClassVar[float] = 2.0

    def make(self, folder: Path) -> None:
        import os

        for name, (short, method, options) in _models().items():
            write_trunk(short, folder / name)
            os.chdir(folder / name)
            model = moved(gn.adapt(trunk(short), method(), **options))
            model.save(BUNDLE, metrics={task: {"score": 0.5} for task in model.tasks})
            from PIL import Image

            Image.fromarray(picture()).save("street.png")
        os.chdir(folder)

    def damages(self) -> Sequence[tuple[float, Damage]]:
        files = lambda folder: sorted((folder / BUNDLE).iterdir())  # noqa: E731
        return [
            (2.0, any_bytes(files)),
            (1.0, _sealed_bytes),
            (0.7, another_kind(files)),
            (5.0, _structure),
            (1.5, _header),
        ]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        way = draw.choice(["load", "load", "load", "given", "into", "info", "predict", "merge", "export"])
        if way == "info":
            command("info", BUNDLE, "--json") if draw.random() < 0.5 else command("info", BUNDLE)
        elif way == "predict":
            command("predict", BUNDLE, "street.png", "--out", "out")
        elif way == "merge":
            command("merge", BUNDLE, "--out", "out")
        elif way == "export":
            command("peft", "export", BUNDLE, "--out", "out")
        else:
            model = _loaded(way)
            said = json.loads((folder / JSON).read_bytes())
            maps = _maps(model)
            model.save("out/again", dtype="float32", tasks=list(said["tasks"]))
            if any(not torch.equal(maps[task], other) for task, other in _maps(gn.load("out/again")).items()):
                raise WrongReading("other maps after saving and loading")
            if said["backbone"]["non_commercial"] != is_non_commercial(said["backbone"]["licence"]):
                raise WrongReading(".backbone.non_commercial: is not what the licence says")
            _as_told(said, json.loads(Path("out/again/bundle.json").read_bytes()))


def _loaded(way: str) -> Model:
    if way == "load":
        return gn.load(BUNDLE)
    # by the trunk's file, which is whole: the reader under test is to meet the damage first
    short = "mit" if b"stages.0" in read_regular("trunk.safetensors", 2**30)[:1000] else "vit"
    if way == "given":
        return gn.load(BUNDLE, backbone=trunk(short))
    model = gn.adapt(trunk(short), gn.LoRA(rank=1), {"saliency": gn.Saliency()})
    model.load(BUNDLE)
    return model.eval()


def _maps(model: Model) -> dict[str, torch.Tensor]:
    """The maps of a picture, which are finite and of its size."""
    found = model.predict(picture())
    maps = {task: found[task].float() for task in model.tasks}
    for task, made in maps.items():
        if tuple(made.shape[-2:]) != (32, 48) or not torch.isfinite(made).all():
            raise WrongReading(f"{task}: the map is {tuple(made.shape)} or not finite")
    return maps


def _as_told(said: Any, is_so: Any, place: str = "") -> None:
    """Whatever the description says is so of the model that was loaded."""
    if isinstance(said, dict):
        for key, value in said.items():
            here = f"{place}.{key}"
            if key in _FREE or here in _FREE_PLACES:
                continue
            if isinstance(is_so, dict) and key in is_so:
                _as_told(value, is_so[key], here)
            elif here != ".backbone.taps":
                raise WrongReading(f"{here}: {value!r:.60} in the description, and nothing in what was loaded")
    elif isinstance(said, list) and isinstance(is_so, list) and len(said) == len(is_so):
        for number, pair in enumerate(zip(said, is_so, strict=True)):
            _as_told(*pair, f"{place}[{number}]")  # options that are left out are found at their defaults
    elif said != is_so:
        raise WrongReading(f"{place}: {said!r:.60} in the description, and {is_so!r:.60} in what was loaded")


# ---- damage -----------------------------------------------------------------------------------------------------


def seal(folder: Path, text: str | None = None, weights: bytes | None = None) -> None:
    """Write files of a bundle so that every digest is right."""
    if weights is not None:
        (folder / WEIGHTS).write_bytes(weights)
    data = (folder / WEIGHTS).read_bytes()
    text = (folder / JSON).read_text() if text is None else text
    if weights is not None:
        former = json.loads((folder / JSON).read_text())
        text = text.replace(former["sha256"], hashlib.sha256(data).hexdigest())
        text = text.replace(f'"weights_bytes": {former["sizes"]["weights_bytes"]}', f'"weights_bytes": {len(data)}')
    told = text.encode("utf-8", "surrogatepass")
    (folder / JSON).write_bytes(told)
    lines = ((told, "bundle.json"), (data, "weights.safetensors"))
    (folder / SUMS).write_text("".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for d, n in lines))


def _structure(draw: Random, folder: Path) -> str:
    tree, told = damaged(draw, json.loads((folder / JSON).read_text()))
    seal(folder, dump_json(tree))
    return f"bundle.json{told}"


def _sealed_bytes(draw: Random, folder: Path) -> str:
    if draw.random() < 0.5:
        data, told = damaged_bytes(draw, (folder / WEIGHTS).read_bytes())
        seal(folder, weights=data)
        return f"weights, sealed: {told}"
    data, told = damaged_bytes(draw, (folder / JSON).read_bytes())
    seal(folder, data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode())
    return f"bundle.json, sealed: {told}"


def _header(draw: Random, folder: Path) -> str:
    data, told = with_header(draw, (folder / WEIGHTS).read_bytes())
    seal(folder, weights=data)
    return f"header of the weights{told}"


def _edited(edit: Callable[[Any], object]) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        tree = json.loads((folder / JSON).read_text())
        edit(tree)
        seal(folder, dump_json(tree))
        return ""

    return damage


def _set(path: str, value: Any) -> Damage:
    def edit(tree: Any) -> None:
        *way, last = path.split("/")
        for key in way:
            tree = tree[int(key)] if isinstance(tree, list) else tree[next(iter(tree)) if key == "*" else key]
        tree[int(last) if isinstance(tree, list) else last] = value

    return _edited(edit)


def _became(name: str, how: str) -> Damage:
    return lambda draw, folder: become(folder / BUNDLE / name, how) or ""


def _first_tensor(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        data = (folder / WEIGHTS).read_bytes()
        header = metadata_of(data)
        change(header[next(name for name in header if name != "__metadata__")])
        seal(folder, weights=joined(dump_json(header), data[8 + int.from_bytes(data[:8], "little") :]))
        return ""

    return damage


def _doubled(draw: Random, folder: Path) -> str:
    text = (folder / JSON).read_text()
    seal(folder, text.replace('"format":', '"format": 1, "format":', 1))
    return ""


_METHOD, _HEAD, _TRUNK = "owners/0/methods/0/options", "tasks/*/head/options", "backbone/options"

CRAFTED: dict[str, Damage] = {
    "adaptformer/wide": _set(f"{_METHOD}/bottleneck", 4_000_000),
    "lora/rank": _set(f"{_METHOD}/rank", 4_000_000),
    "lora/rank beyond all": _set(f"{_METHOD}/rank", 10**18),
    "methods": _edited(lambda d: d["owners"][0].update(methods=d["owners"][0]["methods"] * 10_000)),
    "lora/depth": _set(f"{_TRUNK}/depth", 100_000),
    "adaptformer/depths": _set(f"{_TRUNK}/depths", [100_000, 1, 1, 1]),
    "adaptformer/channels": _set(f"{_HEAD}/channels", 10**6),
    "upper/pool scales": _set(f"{_HEAD}/pool_scales", list(range(1, 200_001))),
    "scales": _set(f"{_HEAD}/scales", list(range(1, 200_001))),
    "lora/width": _set(f"{_TRUNK}/embed_dim", 10**6),
    "lora/picture": _set(f"{_TRUNK}/img_size", 10**6),
    "lora/pickle": _set(f"{_TRUNK}/checkpoint_path", EVIL),
    "lora/pretrained": _set(f"{_TRUNK}/pretrained", True),
    "lora/pretrained_cfg": _edited(
        lambda d: d["backbone"]["options"].update(pretrained=True, pretrained_cfg={"file": EVIL, "source": "file"})
    ),
    "lora/overlay": _edited(
        lambda d: d["backbone"]["options"].update(pretrained=True, pretrained_cfg_overlay={"file": EVIL})
    ),
    "lora/cache": _set(f"{_TRUNK}/cache_dir", "../elsewhere"),
    "evil weights": _set("backbone/weights_source", EVIL),
    "pipe weights": _set("backbone/weights_source", PIPE),
    "endless weights": _set("backbone/weights_source", "trap.link.safetensors"),
    "sparse weights": _set("backbone/weights_source", "trap.sparse.safetensors"),
    "device weights": _set("backbone/weights_source", "/dev/zero"),
    "hub": _set("backbone/weights_source", "owner/name"),
    "url": _set("backbone/weights_source", "http://127.0.0.1:9/x"),
    "mean": _set("preprocessing/mean", [0.1, 0.2, 0.3]),
    "std": _set("preprocessing/std", [0, 0, 0]),
    "multiple": _set("preprocessing/multiple", 7),
    "input": _set("preprocessing/input", "BGR in [0,255]"),
    "adaptformer/labels": _edited(lambda d: next(iter(d["tasks"].values())).update(labels=["x", "y", "z"])),
    "adaptformer/palette": _edited(lambda d: next(iter(d["tasks"].values())).update(palette={"road": [999, -1, 0]})),
    "sizes": _set("sizes/encoder_parameters", -5),
    "bytes": _set("sizes/weights_bytes", 1),
    "non-commercial": _set("backbone/non_commercial", True),
    "licence": _set("backbone/licence", "free\x1b[2J\nNon-commercial"),
    "source": _set("backbone/weights_source", "\x1b]0;title\x07"),
    "adaptformer/classes": _set("tasks/*/options/classes", 200),
    "metrics": _edited(lambda d: d.update(metrics={f"t{i}": {"\x1b[31m": 1e308} for i in range(50_000)})),
    "twice": _doubled,
    "versions": _set("versions/garnish", "\x1b[2J"),
    "fifo": _became("weights.safetensors", "pipe"),
    "zero": _became("weights.safetensors", "/dev/zero"),
    "sparse": _became("weights.safetensors", "sparse"),
    "sums fifo": _became("SHA256SUMS", "pipe"),
    "sums zero": _became("SHA256SUMS", "/dev/zero"),
    "json fifo": _became("bundle.json", "pipe"),
    "json sparse": _became("bundle.json", "sparse"),
    "shape": _first_tensor(lambda t: t.update(shape=[2**40, 0])),
    "offsets": _first_tensor(lambda t: t.update(data_offsets=[0, 2**60])),
    "dtype": _first_tensor(lambda t: t.update(dtype="F64")),
}
