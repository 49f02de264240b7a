"""Every decoder at its default options over 1, 4 and 16 tasks: parameters, MACs, bytes kept for backward, time.

    python benchmarks/decoders/measure.py [--rounds 2] [--threads 1] [--only DPTHead UPerHead] [--trunks Swin-T]

Swin-T and ViT-S/16 with random weights, frozen and without adapters, one picture at 224². Tasks have 21, 7, 1 and 3
outputs, and again from the first. Decoders are timed in evaluation mode from the end of the trunk's pass to the end of
the model's, resizing to the picture included, in processor seconds. Bytes are what a training pass keeps for the
backward pass; the frozen trunk keeps nothing. Each result is written as soon as it is there, to
benchmarks/decoders/results.json, from which ``make docs`` makes docs/decoders.md.
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
from garnish.errors import OptionError
from garnish.model.model import Model
from garnish.model.report import bytes_for_backward, count_macs
from garnish.tasks.task import Task

RESULTS = Path(__file__).with_name("results.json")
TRUNKS = {"Swin-T": "swin_tiny_patch4_window7_224", "ViT-S/16": "vit_small_patch16_224"}
SIZE = (224, 224)
COUNTS = (1, 4, 16)


def tasks(count: int) -> dict[str, Task]:
    """So many tasks, of four kinds in turn."""
    kinds = (gn.Semantic(classes=21), gn.Semantic(classes=7), gn.Saliency(), gn.Normals())
    return {f"task{i}": kinds[i % len(kinds)] for i in range(count)}


def build(trunk: str, head: str, count: int) -> Model:
    """A fresh model with a frozen trunk and the head's default options."""
    torch.manual_seed(0)
    return gn.adapt(gn.backbone(TRUNKS[trunk]), gn.Frozen(), tasks(count), registry.build("heads", head))


def parameters(model: Model) -> int:
    """Trained ones: those of the decoders, each counted once."""
    return sum(parameter.numel() for parameter in model.trained_parameters().values())


def decoder_macs(model: Model) -> int:
    """Of all tasks, for one picture."""
    total, encoder = count_macs(model, SIZE)
    return total - encoder


def kept_for_backward(model: Model, images: Tensor) -> int:
    """Bytes that a training pass keeps, parameters left out."""
    own = (*model.parameters(), *model.backbone.frozen_tensors().values())
    # one value to compute a gradient of; a sum keeps nothing itself
    kept = bytes_for_backward(lambda: torch.stack([y.sum() for y in model.train()(images).values()]).sum(), own)
    model.eval()
    return kept


def seconds(model: Model, images: Tensor) -> float:
    """Processor time of all decoders in one pass."""
    reached: list[float] = []
    handle = model.backbone.register_forward_hook(lambda *_: reached.append(time.process_time()))
    with torch.no_grad():
        model.eval()(images)
    end = time.process_time()
    handle.remove()
    return end - reached[-1]


def row(trunk: str, head: str, count: int, images: Tensor, rounds: int) -> dict[str, Any]:
    """Everything about one decoder for so many tasks."""
    model = build(trunk, head, count)
    # counted first, so that what is timed has allocated before
    found: dict[str, Any] = {"parameters": parameters(model), "macs": decoder_macs(model)}
    times = [seconds(model, images) for _ in range(rounds)]
    return {
        **found,
        "bytes_for_backward": kept_for_backward(model, images),
        "seconds": statistics.median(times),
        "rounds": [round(value, 4) for value in times],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=None, help="heads; the others' results stay as they are")
    parser.add_argument("--trunks", nargs="+", default=list(TRUNKS), choices=list(TRUNKS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = torch.rand(1, 3, *SIZE)
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    found["machine"] = {
        "cores": os.cpu_count(),
        "threads": args.threads,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    found["run"] = {"rounds": args.rounds, "size": list(SIZE), "tasks": list(COUNTS)}
    heads = [n for n, cls in registry.classes("heads").items() if cls.decodes and (not args.only or n in args.only)]
    for count in COUNTS:
        for trunk in args.trunks:
            of_trunk = found.setdefault("trunks", {}).setdefault(trunk, {"name": TRUNKS[trunk], "heads": {}})
            if "macs_encoder" not in of_trunk:
                of_trunk["macs_encoder"] = count_macs(build(trunk, "LinearHead", 1), SIZE)[1]
            for head in heads:
                try:
                    result = row(trunk, head, count, images, args.rounds)
                except OptionError as error:
                    result = {"refused": str(error)}
                of_trunk["heads"].setdefault(head, {})[str(count)] = result
                print(trunk, head, count, json.dumps(result), flush=True)
                RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
                gc.collect()


if __name__ == "__main__":
    main()
