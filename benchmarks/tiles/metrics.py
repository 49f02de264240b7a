"""Metrics of whole pictures and of the same pictures in windows, of a model that was trained at the windows' size.

    python benchmarks/tiles/metrics.py [--steps 120] [--trunk garnish_b0|swin]

The bundled MiT-B0 with LoRA of rank 8, whose attention sees all of a picture, or a small Swin that is trained from the
start, whose attention sees a part, learns four tasks of procedural scenes of 192 x 192, from crops of 96 x 96 at
the scenes' own scale; then it is measured on other scenes, whole (four times the area that it was trained on) and in
windows of 96 with the default overlap. Results go to benchmarks/tiles/metrics.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

import garnish as gn
from garnish.data.augment import Augment

RESULTS = Path(__file__).with_name("metrics.json")
TASKS = ("seg", "depth", "normals", "edges")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--steps", type=int, default=120)
    words.add_argument("--trunk", choices=("garnish_b0", "swin"), default="garnish_b0")
    given = words.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = gn.Scenes(24, seed=1, size=(192, 192), tasks=TASKS)
    test = gn.Scenes(16, seed=2, size=(192, 192), tasks=TASKS)
    trunk, method = gn.backbone("garnish_b0"), gn.LoRA(rank=8)
    if given.trunk == "swin":
        small = {"embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
        trunk, method = gn.backbone("swin_tiny_patch4_window7_224", options=small), gn.FullFineTuning()
    model = gn.adapt(trunk, method, train.tasks, gn.SegFormerHead(channels=32))
    crops = Augment(size=(96, 96), scale=(2.0, 2.0))  # of a scene shrunk to the crop and enlarged again: own scale
    with tempfile.TemporaryDirectory() as folder:
        gn.fit(
            model,
            train,
            None,
            steps=given.steps,
            batch_size=8,
            augment=crops,
            lr=1e-2 if given.trunk == "garnish_b0" else 1e-3,
            head_lr=3e-3,
            out=folder,
            log=("csv",),
            progress=False,
        )
    headline = {name: task.headline for name, task in model.tasks.items()}
    whole, cut = gn.evaluate(model, test), gn.evaluate(model, test, tile=96)
    found = {
        name: {"metric": metric, "whole": round(whole[name][metric], 4), "windows_of_96": round(cut[name][metric], 4)}
        for name, metric in headline.items()
    }
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    results[given.trunk] = {"steps": given.steps, "tasks": found}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
