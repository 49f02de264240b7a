"""Every method at its default options on three trunks: parameters, MACs, training step time, bytes kept for backward.

    python benchmarks/methods/measure.py [--steps 3] [--batch 2] [--threads 1] [--only LoRA Mona]

ViT-S/16, Swin-T and MiT-B0 with random weights at 224², four tasks with 21, 7, 1 and 3 outputs, linear heads, methods
shared by the tasks. A step is forward, a loss of every output value, backward and AdamW, timed in processor time. Steps
alternate with steps of a model with heads only, and the ratio is taken within each pair, so that slow stretches of the
machine fall on both.
Results go to benchmarks/methods/results.json, from which ``make docs`` makes the table in docs/methods.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import garnish as gn
from garnish import registry
from garnish.errors import SiteError
from garnish.model.model import Model
from garnish.model.report import bytes_for_backward, count_macs

RESULTS = Path(__file__).with_name("results.json")
TRUNKS = {
    "ViT-S/16": "vit_small_patch16_224",
    "Swin-T": "swin_tiny_patch4_window7_224",
    "MiT-B0": "mit_b0",
}
SIZE = (224, 224)
REFERENCE = "Frozen"


def build(trunk: str, method: str, tasks: int = 4, *, per_task: bool = False) -> Model:
    """A fresh model with the method's default options."""
    torch.manual_seed(0)
    outputs = {
        "seg": gn.Semantic(classes=21),
        "parts": gn.Semantic(classes=7),
        "saliency": gn.Saliency(),
        "normals": gn.Normals(),
    }
    chosen = dict(list(outputs.items())[:tasks])
    return gn.adapt(gn.backbone(TRUNKS[trunk]), registry.build("adapters", method, {"per_task": per_task}), chosen)


def loss_of(outputs: dict[str, Tensor]) -> Tensor:
    return torch.stack([out.square().mean() for out in outputs.values()]).sum()


def kept_for_backward(model: Model, images: Tensor) -> int:
    """Bytes that a training forward pass keeps for the backward pass, parameters left out."""
    own = (*model.parameters(), *model.backbone.frozen_tensors().values())
    return bytes_for_backward(lambda: loss_of(model(images)), own)


def passes(model: Model, images: Tensor) -> int:
    """Passes of the trunk that a batch with all tasks takes."""
    seen: list[int] = []
    handle = model.backbone.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    return len(seen)


class Stepper:
    """A model in training, stepped and timed."""

    def __init__(self, model: Model, images: Tensor) -> None:
        self.model = model.train()
        self.images = images
        self.optimizer = torch.optim.AdamW(model.trained_parameters().values(), lr=1e-4)

    def seconds(self) -> float:
        """Processor time of one step."""
        start = time.process_time()
        self.optimizer.zero_grad()
        loss_of(self.model(self.images)).backward()
        self.optimizer.step()
        return time.process_time() - start


def row(trunk: str, method: str, images: Tensor, reference: Stepper, steps: int, heads: list[float]) -> dict[str, Any]:
    """Everything about one method on one trunk; the seconds of the reference's steps are added to ``heads``."""
    model = build(trunk, method)
    number = sum(t.numel() for owner in model.owners for t in owner.tensors().values())
    found: dict[str, Any] = {
        "trained": number,
        "bytes_for_backward": kept_for_backward(model.train(), images),
        "passes": passes(model, images),
        "passes_per_task": passes(build(trunk, method, per_task=True), images),
        "macs_4": count_macs(model, SIZE)[1],
        "macs_1": count_macs(build(trunk, method, 1), SIZE)[1],
    }
    mine = Stepper(model, images)
    mine.seconds()  # the first step allocates
    ratios = []
    for pair in range(steps):
        if pair % 2:
            theirs, ours = reference.seconds(), mine.seconds()
        else:
            ours, theirs = mine.seconds(), reference.seconds()
        ratios.append(ours / theirs)
        heads.append(theirs)
    return {**found, "step_ratio": statistics.median(ratios), "step_ratios": [round(r, 3) for r in ratios]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=None, help="methods; the others' results stay as they are")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = torch.rand(args.batch, 3, *SIZE)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    load = [os.getloadavg()[0]]
    for trunk in TRUNKS:
        reference = Stepper(build(trunk, REFERENCE), images)
        reference.seconds()
        heads: list[float] = []
        rows = found.setdefault("trunks", {}).setdefault(trunk, {}).setdefault("methods", {})
        for method in registry.classes("adapters"):
            if args.only is not None and method not in args.only:
                continue
            try:
                rows[method] = row(trunk, method, images, reference, args.steps, heads)
            except SiteError as error:
                rows[method] = {"refused": str(error)}
            print(trunk, method, json.dumps(rows[method]), flush=True)
            gc.collect()
        found["trunks"][trunk] |= {
            "name": TRUNKS[trunk],
            "total": sum(t.numel() for t in reference.model.backbone.frozen_tensors().values()),
            "heads_only_seconds": [round(s, 3) for s in (min(heads), statistics.median(heads), max(heads))],
        }
        load.append(os.getloadavg()[0])
    found["machine"] = {
        "cores": os.cpu_count(),
        "threads": args.threads,
        "load": [round(value, 1) for value in load],
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    found["run"] = {"steps": args.steps, "batch": args.batch, "size": list(SIZE)}
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
