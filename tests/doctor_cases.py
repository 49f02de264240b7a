"""A small set for the doctor, made by formulas: pictures, ids, depth and normals of a room, at odd sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

#: Ids far apart, as a tool writes them, and their classes.
IDS = {0: "floor", 40: "wall", 90: "box", 200: "lamp"}
SIZE = (53, 71)


def room(number: int, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """Floor, back wall, a box and a lamp: picture, ids, depth in mm, normals (x right, y down, z forward) as RGB."""
    draw = np.random.default_rng(number)
    height, width = size
    down, across = np.mgrid[:height, :width].astype(np.float64)
    down, across = down / height - 0.5, (across - width / 2) / height
    far = draw.uniform(3, 4)
    below = np.maximum(down, 1e-3)
    depth = np.minimum(0.6 / below, far + 0.2 * across)
    floor = depth == 0.6 / below
    ids = np.where(floor, 0, 40)
    normals = np.zeros((*size, 3))
    normals[floor] = (0, -1, 0)
    normals[~floor] = np.array([0.2, 0, -1]) / np.hypot(0.2, 1)
    y, x = draw.uniform(-0.1, 0.1), draw.uniform(-0.3, 0.2)
    box = (abs(down - y) < 0.22) & (abs(across - x) < 0.18)
    depth[box] = 1.8 + 0.3 * (across - x)[box]
    ids[box], normals[box] = 90, np.array([0.3, 0, -1]) / np.hypot(0.3, 1)
    ball = (down + 0.3) ** 2 + (across - 0.35) ** 2 < 0.11**2
    depth[ball] = 2.5 + 0.5 * down[ball]
    ids[ball], normals[ball] = 200, np.array([0, 0.5, -1]) / np.hypot(0.5, 1)
    shade = 60 + 25 * np.cos(9 * across + number) + draw.normal(0, 6, size) + 40 * (ids == 90) + 90 * (ids == 200)
    picture = np.clip(shade[..., None] + np.array([20, 10, 0]), 0, 255).astype(np.uint8)
    return {
        "images": picture,
        "seg": ids.astype(np.uint8),
        "depth": np.rint(1000 * depth).astype(np.uint16),
        "normals": np.rint((normals + 1) * 127.5).astype(np.uint8),
    }


def put(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def array(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def jpeg(values: np.ndarray, quality: int = 75) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def make_set(root: Path, counts: dict[str, int], size: tuple[int, int] = SIZE) -> Path:
    """Write a set; returns its data.yaml."""
    number = 0
    for split, count in counts.items():
        for k in range(count):
            for kind, values in room(number, size).items():
                put(root / split / kind / f"{split}-{k:02d}.png", values)
            number += 1
    tasks = {
        "seg": {
            "task": "Semantic",
            "labels": "{split}/seg/{name}.png",
            "classes": list(IDS.values()),
            "map": {old: new for new, old in enumerate(IDS)},
        },
        "depth": {"task": "Depth", "labels": "{split}/depth/{name}.png", "unit": "mm", "max_metres": 10.0},
        "normals": {"task": "Normals", "labels": "{split}/normals/{name}.png"},
    }
    given = {"path": ".", "images": "{split}/images/*.png", "tasks": tasks}
    (root / "data.yaml").write_text(yaml.safe_dump(given, sort_keys=False), "utf-8")
    return root / "data.yaml"
