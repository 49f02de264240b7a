"""VMT-Adapter on Swin-T with a decoder each: time of 16 tasks end to end over that of one.

    OMP_NUM_THREADS=1 python benchmarks/decoders/end_to_end.py [--rounds 3] [--size 448] [--counts 1 4 16]

Random weights, one picture, tasks of four classes, resizing to the picture included. VMT-Adapter scales the trunk's
maps for each task, so that a decoder reads other maps for each: a shared base runs T times. Arms and task counts take
turns, ratios are taken within a round; processor time. Results are kept in benchmarks/decoders/end_to_end.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

import garnish as gn
from garnish.heads.head import Head
from garnish.model.model import Model

RESULTS = Path(__file__).with_name("end_to_end.json")
ARMS: dict[str, Head] = {
    "SharedBaseHead": gn.SharedBaseHead(),
    "SegFormerHead, 64 channels": gn.SegFormerHead(channels=64),
    "SegFormerHead, 256 channels": gn.SegFormerHead(channels=256),
    "LinearHead": gn.LinearHead(),
}


def build(head: Head, count: int) -> Model:
    """A model with so many tasks."""
    torch.manual_seed(0)
    tasks = {f"t{i:02d}": gn.Semantic(classes=4) for i in range(count)}
    return gn.adapt(gn.backbone("swin_tiny_patch4_window7_224"), gn.VMTAdapter(), tasks, head).eval()


def seconds(model: Model, images: torch.Tensor, count: int) -> float:
    """Processor time of one pass with the first tasks."""
    start = time.process_time()
    with torch.no_grad():
        model(images, tasks=list(model.tasks)[:count])
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arms", choices=list(ARMS), nargs="+", default=list(ARMS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = torch.rand(1, 3, args.size, args.size)
    models = {arm: build(ARMS[arm], max(args.counts)) for arm in args.arms}
    taken: dict[str, dict[int, list[float]]] = {arm: {count: [] for count in args.counts} for arm in args.arms}
    for number in range(-1, args.rounds):  # one round to warm up
        for arm, model in models.items():
            for count in args.counts if number % 2 else args.counts[::-1]:
                once = seconds(model, images, count)
                if number >= 0:
                    taken[arm][count].append(once)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found["machine"] = {"cores": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()}
    for arm, of_arm in taken.items():
        for count, times in of_arm.items():
            ratios = [one / base for one, base in zip(times, of_arm[args.counts[0]], strict=True)]
            value = {
                "over one task": round(statistics.median(ratios), 3),
                "from, to": [round(min(ratios), 3), round(max(ratios), 3)],
                "seconds": round(statistics.median(times), 3),
                "rounds": args.rounds,
                "threads": args.threads,
            }
            found.setdefault(str(args.size), {}).setdefault(arm, {})[str(count)] = value
            print(arm, count, json.dumps(value), flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
