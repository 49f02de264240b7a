"""Ordinary 8-bit RGB against an older source tree: reading samples of a folder, one training pass, predict of a file.

    git worktree add ../older 5934812
    python benchmarks/rgb/measure.py ../older [--rounds 9]

Both trees work in turn, each in a process of its own with one thread, on the same files: 24 procedural scenes of
640 x 480, JPEG, with ids and depth as PNG. A number is the older tree's processor time over this one's in one round, so
that 1 is equal and less is slower. Printed are the median, least and most over the rounds; results go to
benchmarks/rgb/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trees import Worker, answer

RESULTS = Path(__file__).with_name("results.json")
COUNT, SIZE = 24, (480, 640)
DESCRIPTION: dict[str, Any] = {
    "images": "images/{name}.jpg",
    "tasks": {
        "seg": {"task": "Semantic", "labels": "seg/{name}.png", "classes": 12},
        "depth": {"task": "Depth", "labels": "depth/{name}.png", "unit": "mm", "max_metres": 20.0},
    },
}


class Reading:
    """Reads every sample of the folder, labels with it."""

    def __init__(self, folder: str) -> None:
        import garnish as gn

        self.data = gn.folder({"path": folder, **DESCRIPTION}, "all")

    def seconds(self) -> float:
        """Processor seconds of one round."""
        start = time.process_time()
        for index in range(len(self.data)):
            self.data[index]
        return time.process_time() - start


class Passes:
    """Forward and backward of four pictures at 128 x 128: MiT-B0, LoRA, one task."""

    def __init__(self, folder: str) -> None:
        import torch

        import garnish as gn

        torch.manual_seed(0)
        tasks = {"seg": gn.Semantic(classes=12)}
        self.model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=8), tasks, gn.SegFormerHead(channels=32))
        self.images = torch.rand(4, 3, 128, 128)

    def seconds(self) -> float:
        """Processor seconds of one round."""
        start = time.process_time()
        for _ in range(6):
            self.model(self.images)["seg"].square().mean().backward()
        return time.process_time() - start


class Predicting:
    """Predicts pictures of the folder one by one, as ``Model.predict`` does of a file."""

    def __init__(self, folder: str) -> None:
        import torch

        import garnish as gn

        torch.manual_seed(0)
        tasks = {"seg": gn.Semantic(classes=12)}
        self.model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=8), tasks, gn.SegFormerHead(channels=32)).eval()
        self.files = sorted(Path(folder, "images").iterdir())[:3]

    def seconds(self) -> float:
        """Processor seconds of one round."""
        start = time.process_time()
        for file in self.files:
            self.model.predict(file)
        return time.process_time() - start


MAKERS = {"reading": Reading, "training pass": Passes, "predict": Predicting}


def write_folder(folder: Path) -> None:
    """The files that are read."""
    import numpy as np
    from PIL import Image

    import garnish as gn

    for kind in ("images", "seg", "depth"):
        (folder / kind).mkdir()
    scenes = gn.Scenes(COUNT, seed=3, size=SIZE)
    for index in range(COUNT):
        sample = scenes[index]
        found = {type(task).__name__: sample.targets[name].numpy() for name, task in scenes.tasks.items()}
        picture = np.ascontiguousarray(sample.image.numpy().transpose(1, 2, 0))
        Image.fromarray(picture).save(folder / "images" / f"{index:03}.jpg", quality=92)
        Image.fromarray(found["Semantic"].astype(np.uint8)).save(folder / "seg" / f"{index:03}.png")
        millimetres = np.round(np.nan_to_num(found["Depth"][0], posinf=0) * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(folder / "depth" / f"{index:03}.png")


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("older", type=Path, help="a folder that holds src/garnish of an older commit")
    words.add_argument("--rounds", type=int, default=9)
    given = words.parse_args()
    here = Path(__file__).resolve().parents[2]
    found: dict[str, Any] = {"rounds": given.rounds, "load": os.getloadavg()}
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder))
        workers = [Worker(tree, __file__) for tree in (given.older.resolve(), here)]
        for what in MAKERS:
            for worker in workers:
                worker.ask(what, folder)
                worker.ask("seconds")  # the first is slower
            pairs = []
            for number in range(given.rounds):
                order = workers if number % 2 == 0 else workers[::-1]
                times = {worker: worker.ask("seconds") for worker in order}
                pairs.append([times[worker] for worker in workers])
            ratios = [old / new for old, new in pairs]
            found[what] = {
                "median": round(statistics.median(ratios), 3),
                "least": round(min(ratios), 3),
                "most": round(max(ratios), 3),
                "seconds": [[round(seconds, 3) for seconds in pair] for pair in pairs],
            }
            told = found[what]
            print(f"{what}: {told['median']} ({told['least']} to {told['most']})", flush=True)
        for worker in workers:
            worker.close()
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        answer(MAKERS)
    else:
        main()
