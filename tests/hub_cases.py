"""Small bundles that are sent to the Hub of the tests and fetched from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import garnish as gn
from garnish.files.checksums import with_sums

NAMES = ("bundle.json", "weights.safetensors", "SHA256SUMS")


def save_bundle(folder: Path, task: str = "seg", *, classes: tuple[str, ...] = ("sky", "road")) -> Path:
    """A bundle of one task on the trunk that comes with the package."""
    tasks = {task: gn.Semantic(classes=list(classes))}
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=1), tasks=tasks)
    model.save(folder, metrics={task: {"miou": 0.4321, "iou/sky": 0.5}})
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """A bundle's own files."""
    return {name: (folder / name).read_bytes() for name in NAMES}


def changed(files: dict[str, bytes], change: Callable[[dict], None]) -> dict[str, bytes]:
    """The files of a bundle whose description a stranger wrote anew, with sums that fit."""
    facts = json.loads(files["bundle.json"])
    change(facts)
    text = json.dumps(facts, sort_keys=True, indent=2, ensure_ascii=False)
    return with_sums({"bundle.json": text.encode(), "weights.safetensors": files["weights.safetensors"]})
