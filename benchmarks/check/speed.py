"""How long the doctor looks at a picture: 2,000 pictures of 640 x 480 with ids and depth, really looked at.

    python benchmarks/check/speed.py [--pictures 2000] [--jobs 2]

The pictures are 48 procedural scenes, JPEG of quality 92 with PNG labels (level 1), rolled sideways so that no two are
the same; they are written once, to a folder that goes in the end. Printed are milliseconds a picture: processor time
and wall in this process (over 96 pictures, after some that are not counted), and wall with ``--jobs`` processes over
all pictures, their start included. The load of the machine stands beside them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import garnish as gn
from garnish.doctor.examine import examine

SCENES, SIZE, ONE_PROCESS = 48, (480, 640), 96
DESCRIPTION: dict[str, Any] = {
    "images": "images/{name}.jpg",
    "splits": {"train": "train.txt"},
    "tasks": {
        "seg": {"task": "Semantic", "labels": "seg/{name}.png", "classes": 12},
        "depth": {"task": "Depth", "labels": "depth/{name}.png", "unit": "mm", "max_metres": 20.0},
    },
}


def write(root: Path, count: int) -> None:
    """The pictures and labels, and the list of their names."""
    for kind in ("images", "seg", "depth"):
        (root / kind).mkdir()
    scenes = gn.Scenes(SCENES, seed=3, size=SIZE)
    for number in range(min(SCENES, count)):
        sample = scenes[number]
        found = {type(task).__name__: sample.targets[name].numpy() for name, task in scenes.tasks.items()}
        picture = np.ascontiguousarray(sample.image.numpy().transpose(1, 2, 0))
        depth = np.rint(np.nan_to_num(found["Depth"][0], posinf=0) * 1000).astype(np.uint16)
        for index in range(number, count, SCENES):
            maps = [np.roll(one, 13 * (index // SCENES), 1) for one in (picture, found["Semantic"], depth)]
            Image.fromarray(maps[0]).save(root / "images" / f"{index:05}.jpg", quality=92)
            Image.fromarray(maps[1].astype(np.uint8)).save(root / "seg" / f"{index:05}.png", compress_level=1)
            Image.fromarray(maps[2]).save(root / "depth" / f"{index:05}.png", compress_level=1)
    (root / "train.txt").write_text("".join(f"{index:05}\n" for index in range(count)))


def look(root: Path, jobs: int, limit: int | None = None) -> tuple[float, float, int]:
    """Wall and processor seconds (of this process) of one look, and how many pictures it was."""
    wall, processor = time.perf_counter(), time.process_time()
    found = examine(DESCRIPTION, root=root, jobs=jobs, limit=limit)
    return time.perf_counter() - wall, time.process_time() - processor, sum(f.looked for f in found.splits.values())


def main() -> None:
    """Write, look, print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pictures", type=int, default=2000)
    words.add_argument("--jobs", type=int, default=2)
    given = words.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, given.pictures)
        look(root, 1, 4)
        wall, processor, count = look(root, 1, ONE_PROCESS)
        told = f"processor {1e3 * processor / count:.1f} ms, wall {1e3 * wall / count:.1f} ms a picture"
        print(f"1 process, {count} pictures: {told}", flush=True)
        before = os.getloadavg()[0]
        wall, _, count = look(root, given.jobs)
        print(f"{given.jobs} processes, {count} pictures: wall {wall:.1f} s, {1e3 * wall / count:.1f} ms a picture")
        print(f"load of {os.cpu_count()} processors: {before:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
