"""The sets that are spoiled: garnish's own scenes, and real ones where ``../shared/data`` holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from written import Label, Written

import garnish as gn

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TRAIN, VAL = 40, 10


def rooms(root: Path, seed: int) -> Written:
    """50 scenes of 160x120; other scenes for every seed."""
    scenes = gn.Scenes(TRAIN + VAL, size=(120, 160), seed=1_000 + seed)
    names = list(scenes.tasks["seg"].classes)
    tasks = {
        "seg": Label("ids", {"task": "Semantic", "classes": names}, len(names)),
        "depth": Label("depth", {"task": "Depth", "unit": "mm", "max_metres": 10}),
        "normals": Label("normals", {"task": "Normals", "axes": "x right, y down, z forward"}),
        "edges": Label("lines", {"task": "Edges", "threshold": 127}),
        "saliency": Label("mask", {"task": "Saliency", "threshold": 127}),
    }
    written = Written(root, tasks, [("train" if k < TRAIN else "val", f"scene_{k:04d}") for k in range(TRAIN + VAL)])
    for index, place in enumerate(written.pictures):
        sample = scenes[index]
        maps = {task: np.asarray(target) for task, target in sample.targets.items()}
        written.write("images", place, np.ascontiguousarray(sample.image.numpy().transpose(1, 2, 0)))
        written.write("seg", place, maps["seg"].astype(np.uint8))
        written.write("depth", place, np.rint(maps["depth"][0] * 1000).astype(np.uint16))
        written.write("normals", place, np.rint((maps["normals"].transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8))
        for task in ("edges", "saliency"):
            written.write(task, place, (maps[task][0] == 1).astype(np.uint8) * 255)
    return written


def evenly(files: Sequence[Path], count: int) -> list[Path]:
    return [files[k * len(files) // count] for k in range(min(count, len(files)))]


def real(
    root: Path,
    tasks: dict[str, Label],
    train: Sequence[Path],
    val: Sequence[Path],
    labels: dict[str, Callable[[Path], Path]],
) -> Written:
    """Pictures as PNG, labels with their numbers as they are."""
    places = [(split, file) for split, files in (("train", train), ("val", val)) for file in files]
    written = Written(root, tasks, [(split, file.stem) for split, file in places])
    for place, (_, file) in zip(written.pictures, places, strict=True):
        written.write("images", place, np.asarray(Image.open(file).convert("RGB")))
        for task, label_of in labels.items():
            written.write(task, place, np.asarray(Image.open(label_of(file))))
    return written


def beside(folder: str) -> Callable[[Path], Path]:
    """Label of a picture: ROOT/FOLDER/SPLIT/NAME.png."""
    return lambda file: file.parents[2] / folder / file.parent.name / f"{file.stem}.png"


def pictures_of(name: str, folder: str, split: str) -> list[Path]:
    return sorted((SHARED / name / folder / split).glob("*.jpg"))


def camvid(root: Path, seed: int) -> Written:
    """40 frames of the training sequences, 10 of a sequence that is none of these."""
    classes = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    tasks = {"seg": Label("ids", {"task": "Semantic", "classes": classes, "ignore": 11}, 11, 11)}
    val = [f for f in pictures_of("camvid", "images", "test") if f.stem.startswith("Seq05VD")]
    train = evenly(pictures_of("camvid", "images", "train"), TRAIN)
    return real(root, tasks, train, evenly(val, VAL), {"seg": beside("labels")})


def replica(root: Path, seed: int) -> Written:
    """One room: 40 frames before number 58, and the 9 from number 72 on, so that no frames of one moment are apart."""
    names = [
        "wall",
        "floor",
        "rug",
        "ceiling",
        "chair",
        "sofa",
        "table",
        "blinds",
        "door",
        "tv-screen",
        "plant",
        "bin",
        "small-object",
        "board",
    ]
    tasks = {
        "semantic": Label("ids", {"task": "Semantic", "classes": names}, 14),
        "depth": Label("depth", {"task": "Depth", "unit": "mm", "max_metres": 5}),
        "normals": Label("normals", {"task": "Normals", "axes": "x right, y down, z forward"}),
        "edges": Label("lines", {"task": "Edges", "threshold": 127}),
    }
    train, val = pictures_of("replica_office0", "rgb", "train")[:TRAIN], pictures_of("replica_office0", "rgb", "test")
    return real(root, tasks, train, val[-9:], {task: beside(task) for task in tasks})


def parsing(root: Path, seed: int) -> Written:
    """Human parts in seven classes, and the foreground of the same maps as a file of its own."""
    names = ["background", "hair", "skin", "upper", "lower", "feet", "accessory"]
    tasks = {"parts": Label("ids", {"task": "Semantic", "classes": names}, 7)}
    train, val = (pictures_of("ccp_human_parsing", "images", split) for split in ("train", "val"))
    return real(root, tasks, evenly(train, TRAIN), evenly(val, VAL), {"parts": beside("parts")})


def cracks(root: Path, seed: int) -> Written:
    """Cracks of a few pixels' width."""
    tasks = {"crack": Label("ids", {"task": "Semantic", "classes": ["pavement", "crack"], "ignore": 255}, 2)}
    train, val = (pictures_of("crackforest", "images", split) for split in ("train", "val"))
    return real(root, tasks, evenly(train, TRAIN), evenly(val, VAL), {"crack": beside("labels")})


#: set → (how it is made, whether it is there)
SETS = {"rooms": rooms, "camvid": camvid, "replica": replica, "parsing": parsing, "cracks": cracks}
FOLDERS = {"camvid": "camvid", "replica": "replica_office0", "parsing": "ccp_human_parsing", "cracks": "crackforest"}


def there() -> list[str]:
    """Names of the sets that can be made here."""
    return [name for name in SETS if name not in FOLDERS or (SHARED / FOLDERS[name]).is_dir()]
