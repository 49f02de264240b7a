"""Training from windows of large pictures against reading them whole: time and memory of a step.

    python benchmarks/windows/measure.py make runs/windows_data    # two pictures of 4000², tiled TIFF, ids and depth
    python benchmarks/windows/measure.py read runs/windows_data    # pictures alone, each way in a process of its own
    garnish train --config recipes/windows.yaml

Pictures are mosaics of 16 procedural scenes of 500², in another order for each and mirrored at random, so they are
made in seconds. ``read`` draws the same crops in both ways, takes them in turn and prints the median of the rounds;
memory is the process's peak above what it had before the first crop.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

import garnish as gn
from garnish.data.augment import Augment
from garnish.data.loader import StepBatches

SIDE, TILES = 4000, 8
AUGMENT = Augment(size=(512, 512), scale=(4.0, 10.0))


def make(root: Path, pictures: int) -> None:
    """Write ``images``, ``seg`` and ``depth`` below ``root/SPLIT``: uint8 RGB, uint8 ids, uint16 millimetres."""
    part = SIDE // TILES
    scenes = [gn.Scenes(16, seed=7, size=part, tasks=("seg", "depth"))[k] for k in range(16)]
    draw = np.random.default_rng(0)
    for split, count in (("train", pictures), ("val", 1)):
        for number in range(count):
            whole = {
                "images": np.zeros((SIDE, SIDE, 3), np.uint8),
                "seg": np.zeros((SIDE, SIDE), np.uint8),
                "depth": np.zeros((SIDE, SIDE), np.uint16),
            }
            for place in range(TILES * TILES):
                scene, turn = scenes[draw.integers(16)], 1 - 2 * int(draw.integers(2))
                y, x = part * (place // TILES), part * (place % TILES)
                at = (slice(y, y + part), slice(x, x + part))
                whole["images"][at] = scene.image.numpy().transpose(1, 2, 0)[:, ::turn]
                whole["seg"][at] = scene.targets["seg"].numpy()[:, ::turn]
                whole["depth"][at] = (1000 * scene.targets["depth"].numpy()[0]).round().clip(0, 65535)[:, ::turn]
            for kind, values in whole.items():
                file = root / split / kind / f"{split}{number}.tif"
                file.parent.mkdir(parents=True, exist_ok=True)
                how = "rgb" if values.ndim == 3 else "minisblack"
                tifffile.imwrite(file, values, tile=(256, 256), compression="zlib", photometric=how)


def described(root: Path) -> dict[str, object]:
    """The data set, as ``recipes/data/windows.yaml`` has it."""
    scenes = gn.Scenes(1, tasks=("seg",)).tasks["seg"]
    return {
        "path": str(root),
        "images": "{split}/images/{name}.tif",
        "tasks": {
            "seg": {"task": "Semantic", "classes": list(scenes.label_names or ()), "labels": "{split}/seg/{name}.tif"},
            "depth": {"task": "Depth", "unit": "mm", "max_metres": 10, "labels": "{split}/depth/{name}.tif"},
        },
    }


def arm(root: Path, way: str, crops: int) -> dict[str, float]:
    """Seconds a crop, and megabytes above the start, of this process."""
    data = gn.folder(described(root), "train")
    if way == "whole":
        type(data).windows = lambda self, index: None
    batches = StepBatches(data, 1, augment=AUGMENT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    for step in range(crops):
        batches.batch_at(step)
    seconds = (time.perf_counter() - begun) / crops
    return {"seconds": seconds, "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def main() -> None:
    """Run one of the commands above."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("what", choices=("make", "read", "arm"))
    read.add_argument("root", type=Path)
    read.add_argument("--pictures", type=int, default=2)
    read.add_argument("--crops", type=int, default=6)
    read.add_argument("--rounds", type=int, default=3)
    read.add_argument("--way", choices=("windows", "whole"), default="windows")
    given = read.parse_args()
    if given.what == "make":
        make(given.root, given.pictures)
    elif given.what == "arm":
        print(json.dumps(arm(given.root, given.way, given.crops)))
    else:
        found: dict[str, list[dict[str, float]]] = {"windows": [], "whole": []}
        for _ in range(given.rounds):
            for way, rows in found.items():
                words = [sys.executable, __file__, "arm", str(given.root), "--way", way, "--crops", str(given.crops)]
                rows.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
        for way, rows in found.items():
            seconds, memory = (statistics.median(row[key] for row in rows) for key in ("seconds", "megabytes"))
            print(f"{way:8} {1000 * seconds:8.0f} ms a crop of 512², {memory:6.0f} MB above the start")


if __name__ == "__main__":
    main()
