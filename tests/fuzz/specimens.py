"""Small parts that specimens are made of: trunks with their weights, pictures, labels."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import garnish as gn
from garnish.backbones.backbone import Backbone
from garnish.model.model import Model

#: Name and options of trunks of a few kilobytes.
TRUNKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 16, "depth": 4, "num_heads": 2}),
    "mit": ("mit_b0", {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}),
}
TRUNK = "trunk.safetensors"
CLASSES = ["road", "wall", "sky"]


@cache
def _weights(short: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    name, options = TRUNKS[short]
    if short == "vit":  # in timm's names
        return timm.create_model(name, num_classes=0, **options).state_dict()
    made = gn.backbone(name, options=options)
    return {n: getattr(module, leaf).detach().clone().contiguous() for n, module, leaf in made.named_slots()}


def write_trunk(short: str, folder: Path) -> Path:
    """The weights of a trunk as a file of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_weights(short), folder / TRUNK)
    return folder / TRUNK


def trunk(short: str, weights: str = TRUNK) -> Backbone:
    """A trunk with weights of a file, relative to the working directory."""
    name, options = TRUNKS[short]
    return gn.backbone(name, weights, options=options)


@torch.no_grad()
def moved(model: Model) -> Model:
    """The same model, everything trained away from its start."""
    for parameter in model.trained_parameters().values():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 20)
    return model.eval()


def picture(seed: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    """(height, width, 3) uint8."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def write_set(folder: Path, *, height: int = 32, width: int = 48) -> None:
    """Pictures with ids and depth of two splits, in ``rgb``, ``seg`` and ``depth``."""
    for number, split in enumerate(("train", "train", "val")):
        pixels = picture(number, height, width)
        ids = (pixels.argmax(-1)).astype(np.uint8)
        ids[0, :4] = 255
        metres = (500 + pixels[..., 0].astype(np.uint16) * 10).astype(np.uint16)
        for kind, values in (("rgb", pixels), ("seg", ids), ("depth", metres)):
            file = folder / kind / split / f"p{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(file)


#: The description of :func:`write_set`.
DESCRIPTION: dict[str, Any] = {
    "images": "rgb/{split}/*.png",
    "splits": {"train": "train", "val": "val"},
    "tasks": {
        "seg": {"task": "Semantic", "labels": "seg/{split}/{name}.png", "classes": CLASSES, "ignore": 255},
        "depth": {"task": "Depth", "labels": "depth/{split}/{name}.png", "unit": "mm", "max_metres": 5},
    },
}


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
