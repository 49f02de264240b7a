"""Files of annotation tools, of each format: by ``gn.folder``, as classes, masks and outlines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

import garnish as gn

from ..damage_files import another_kind, any_bytes, become
from ..damage_values import damaged, dump_json, dump_yaml
from ..specimens import picture
from ..surface import Damage, Surface
from ..verdicts import WrongReading
from .labels import H, W, check_sample

SQUARE = [3, 2, 20, 2, 20, 15, 3, 15]


def _coco() -> dict[str, Any]:
    runs = {"size": [H, W], "counts": [5, 40, H * W - 45]}
    packed = {"size": [H, W], "counts": "R12P1^?N"}  # damaged, as most text is
    kinds = [(7, [SQUARE], 0), (3, [[1, 1, 9.5, 1, 9.5, 9], [20, 20, 30, 20, 30, 30]], 0), (3, runs, 1)]
    entries = [
        {"image_id": 5, "category_id": c, "segmentation": s, "iscrowd": i, "id": k} for k, (c, s, i) in enumerate(kinds)
    ]
    return {
        "info": {"year": 2017},
        "images": [{"id": 5, "file_name": "a.jpg", "height": H, "width": W}, {"id": 6, "file_name": "b.jpg"}],
        "annotations": [*entries, {"image_id": 6, "category_id": 3, "segmentation": packed}],
        "categories": [{"id": 3, "name": "road"}, {"id": 7, "name": "wall"}],
    }


def _panoptic() -> dict[str, Any]:
    segments = [{"id": 9, "category_id": 3}, {"id": 300, "category_id": 7, "iscrowd": 1}]
    made = _coco()
    made["annotations"] = [{"image_id": 5, "file_name": "a.png", "segments_info": segments}]
    return made


def specimens() -> dict[str, Any]:
    """Name → content of its file."""
    return {"coco": _coco(), "panoptic": _panoptic()}


class AnnotationLabels(Surface):
    """A picture with a file of each format, read as three tasks."""

    name: ClassVar[str] = "annotations"
    share: ClassVar[float] = 1.5

    def make(self, folder: Path) -> None:
        for name, content in specimens().items():
            place = folder / name
            (place / "rgb").mkdir(parents=True)
            Image.fromarray(picture(1)).save(place / "rgb" / "a.png")
            (place / "l.json").write_text(json.dumps(content))
            if name == "panoptic":
                (place / "l").mkdir()
                numbers = np.zeros((H, W, 3), np.uint8)
                numbers[3:20, 4:30] = (9, 0, 0)
                numbers[10:25, 20:40] = (44, 1, 0)
                Image.fromarray(numbers).save(place / "l" / "a.png")
            seg = {"task": "Semantic", "classes": ["background", "road", "wall"]}
            tasks = {"seg": seg, "any": {"task": "Saliency"}, "edges": {"task": "Edges", "from": "boundaries"}}
            plain = {"images": "rgb/*.png", "tasks": {k: {**v, "labels": "l.json"} for k, v in tasks.items()}}
            (place / "data.yaml").write_text(dump_yaml(plain))

    def damages(self) -> Sequence[tuple[float, Damage]]:
        return [(2.0, any_bytes(_files)), (0.5, another_kind(_files)), (5.0, _structure)]

    def crafted(self) -> Mapping[str, Damage]:
        return CRAFTED

    def read(self, folder: Path, draw: Random) -> None:
        made = gn.folder("data.yaml", "train")
        sample = made[0]
        check_sample(sample, made.tasks)
        again = made[0].targets
        if any(
            not torch.equal(again[k].as_subclass(torch.Tensor), v.as_subclass(torch.Tensor))
            for k, v in sample.targets.items()
        ):
            raise WrongReading("read twice, it is another")


def _files(folder: Path) -> list[Path]:
    return [folder / "l.json", *sorted((folder / "l").glob("*.png"))]


def _structure(draw: Random, folder: Path) -> str:
    file = folder / "l.json"
    tree, words = damaged(draw, json.loads(file.read_text()))
    file.write_text(dump_json(tree))
    return words


def _with(**changed: Any) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        (folder / "l.json").write_text(json.dumps({**_coco(), **changed}))
        return ""

    return damage


def _one(segmentation: Any, count: int = 1) -> Damage:
    return _with(annotations=[{"image_id": 5, "category_id": 3, "segmentation": segmentation}] * count)


def _text(text: str) -> Damage:
    def damage(draw: Random, folder: Path) -> str:
        (folder / "l.json").write_text(text)
        return ""

    return damage


CRAFTED: dict[str, Damage] = {
    **{how: (lambda draw, folder, how=how: become(folder / "l.json", how) or "") for how in ("pipe", "sparse", "loop")},
    "far polygon": _one([[-1e7, -1e7, 1e7, -1e7, 1e7, 1e7]]),
    "farther polygon": _one([[-1e300, 0, 1e300, 0, 0, 9]]),
    "tangle": _one([[k % 40 if k % 2 else k % 3 * 15 for k in range(200_000)]]),
    "full runs": _one({"size": [H, W], "counts": [0, H * W]}, 2_000),
    "huge size": _one({"size": [2**31 - 1, 2**31 - 1], "counts": "0"}),
    "long text": _one({"size": [H, W], "counts": "o" * 1_000_000}),
    "deep": _text('{"images": [], "categories": [], "annotations": ' + "[" * 500_000),
    "deep beside": _text('{"images": [], "annotations": [], "categories": [], "x": ' + '{"a":' * 500_000),
    "long number": _text('{"images": [], "annotations": [], "categories": [], "x": ' + "1" * 1_000_000 + "}"),
    "a picture of a terabyte": _with(images=[{"id": 5, "file_name": "a.jpg", "height": 2**20, "width": 2**20}]),
    "names that lead out": _with(images=[{"id": 5, "file_name": "../../a.jpg", "height": H, "width": W}]),
}
