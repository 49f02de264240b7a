"""Small sets with annotation files, written by tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import garnish as gn
from garnish.data.folder import FolderDataset

#: (H, W) of the pictures.
SIZE = (11, 17)
SQUARE = [2, 1, 9, 1, 9, 7, 2, 7]
INNER = [4, 3, 7, 3, 7, 6, 4, 6]
CATEGORIES = [{"id": 7, "name": "car"}, {"id": 3, "name": "dog"}]


def coco_text(**changed: Any) -> dict[str, Any]:
    """The content of a file of one picture, a square car with a dog before it."""
    return {
        "images": [{"id": 12, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [
            {"id": 1, "image_id": 12, "category_id": 3, "segmentation": [INNER], "iscrowd": 0, "bbox": [4, 3, 3, 3]},
            {"id": 2, "image_id": 12, "category_id": 7, "segmentation": [SQUARE], "iscrowd": 0},
        ],
        "categories": CATEGORIES,
        **changed,
    }


def write_pictures(root: Path, names: Sequence[str], size: tuple[int, int] = SIZE) -> None:
    for name in names:
        file = root / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(file)


def opened(root: Path, task: Mapping[str, Any] | None = None, content: Any = None, **described: Any) -> FolderDataset:
    """The set of ``coco.json`` and the pictures in ``images``; picture "a" is written if there are none."""
    if not (root / "images").exists():
        write_pictures(root, ["a"])
    if content is not None:
        (root / "coco.json").write_text(json.dumps(content))
    entry = {"task": "Semantic", "labels": "coco.json", "classes": ["background", "car", "dog"], **(task or {})}
    entry = {key: value for key, value in entry.items() if value is not None}
    return gn.folder({"images": "images/{name}.png", **described, "tasks": {"t": entry}}, root=root)


def target(dataset: FolderDataset, index: int = 0) -> np.ndarray:
    return np.asarray(dataset[index].targets["t"])
