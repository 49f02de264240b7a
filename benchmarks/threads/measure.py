"""Throughput of one model from two threads against one, and what the modules of an owner that tunes the trunk cost.

python benchmarks/threads/measure.py [--rounds 7] [--passes 12]

A ViT-S/16 with random weights at 224², one picture a pass, one intra-op thread (``set_num_threads(1)``), nothing else
running. Rounds of one thread and of two alternate; the ratio is of the two rates of a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import garnish as gn
from garnish.model.model import Model

RESULTS = Path(__file__).parent / "results.json"
TASKS = {"seg": gn.Semantic(classes=11), "depth": gn.Depth(max_metres=10)}
METHODS = {
    "LoRA, shared": gn.LoRA(rank=8),
    "LoRA, per task": gn.LoRA(rank=8, per_task=True),
    "BitFit, per task": gn.BitFit(per_task=True),
    "MTLoRA": gn.MTLoRA(),
}


def seconds(model: Model, picture: torch.Tensor, threads: int, passes: int) -> float:
    """Time in which each of so many threads runs ``passes`` passes."""

    def work(first: int) -> None:
        for number in range(passes):
            with torch.inference_mode():
                model(picture, [list(TASKS)[(first + number) % 2]])

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(work, range(threads)))
        return time.perf_counter() - started


def throughput(method: gn.LoRA, rounds: int, passes: int) -> dict[str, float]:
    model = gn.adapt(gn.backbone("vit_small_patch16_224"), method, tasks=TASKS).eval()
    picture = torch.rand(1, 3, 224, 224)
    seconds(model, picture, 2, 2)
    ratios, rates = [], []
    for _ in range(rounds):
        one, two = seconds(model, picture, 1, passes), seconds(model, picture, 2, passes)
        rates.append(passes / one)
        ratios.append(2 * one / two)
    least, middle, most = statistics.quantiles(ratios, n=4)
    return {"passes_per_second_one_thread": statistics.median(rates), "two_over_one": middle, "q1": least, "q3": most}


def own_modules() -> dict[str, float]:
    """Of a tuned owner on a ViT-S: milliseconds to add it, and megabytes of Python objects beside its tensors."""
    model = gn.adapt(gn.backbone("vit_small_patch16_224"), gn.BitFit(), tasks={"seg": TASKS["seg"]})
    times = []
    for _ in range(7):
        started = time.process_time()
        model.owners[0].lay_out(model.backbone.body)
        times.append(time.process_time() - started)
    tracemalloc.start()
    model.owners[0].lay_out(model.backbone.body)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"milliseconds": 1e3 * statistics.median(times), "megabytes": kept / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--passes", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "torch": torch.__version__,
        "rounds": given.rounds,
        "passes": given.passes,
        "throughput": {name: throughput(m, given.rounds, given.passes) for name, m in METHODS.items()},
        "modules of a tuned owner": own_modules(),
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
