"""The learning rates of the demo's arms: four a method, on scenes that the demo does not use.

    python benchmarks/demo_rates.py

Prints the headline metrics of each and Δm against the first rate of full fine-tuning.
"""

from __future__ import annotations

import argparse

import torch

import garnish as gn
from garnish.data.augment import Augment
from garnish.demo import ARMS, HEAD_RATE, SIZE, STYLE, TASKS
from garnish.registry import build
from garnish.tasks.metrics.delta_m import delta_m

RATES = (3e-4, 1e-3, 3e-3, 1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=77)
    args = parser.parse_args()
    train = gn.Scenes(256, size=SIZE, seed=args.seed, style=STYLE, tasks=TASKS, keep=True)
    val = gn.Scenes(64, size=SIZE, seed=args.seed + 1, style=STYLE, tasks=TASKS, keep=True)
    first: dict[str, float] | None = None
    for arm in ("full fine-tuning", "LoRA, rank 8"):
        name, options, _ = ARMS[arm]
        for rate in RATES:
            torch.manual_seed(args.seed)
            head = gn.SegFormerHead(channels=32)
            model = gn.adapt(gn.backbone("garnish_b0"), build("adapters", name, options), dict(train.tasks), head)
            gn.fit(
                model, train, steps=args.steps, batch_size=16, lr=rate, head_lr=HEAD_RATE, seed=args.seed,
                augment=Augment(scale=(1.0, 1.3), flip=0.5), progress=False, log=(),
            )  # fmt: skip
            found = gn.evaluate(model, val, batch_size=16)
            headline = {task: found[task][model.tasks[task].headline] for task in TASKS}
            first = first or headline
            better = {task: model.tasks[task].higher_is_better for task in TASKS}
            figures = " ".join(f"{task} {value:.4f}" for task, value in headline.items())
            print(f"{arm:18} lr {rate:g}: {figures}  Δm {delta_m(headline, first, better):+.2f}", flush=True)


if __name__ == "__main__":
    main()
