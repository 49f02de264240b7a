"""Bands beside red, green and blue on scenes whose materials show nowhere else: recipes/bands.yaml, arm by arm.

    python benchmarks/bands/measure.py [--steps 100] [--seeds 0] [--arms "ten, zero" "ten, mean" rgb]
    python benchmarks/bands/measure.py --table          # prints what has been measured

Arms: the ten bands, with the filters of the seven others beginning at zero or at the mean of the trunk's three, and
ordinary pictures of the same scenes. Everything else is that of the recipe; scored is the split test. An arm of 100
steps takes about a minute of one core. Ordinary pictures must fail: by at least MARGIN of mean IoU, else this ends with
status 1. Results are kept in benchmarks/bands/results.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

import garnish as gn
from garnish.recipes.build_model import build_model
from garnish.recipes.recipe import read_recipe

HERE = Path(__file__).resolve()
RESULTS = HERE.with_name("results.json")
RECIPE = HERE.parents[2] / "recipes" / "bands.yaml"
#: arm → what it sets anew in the recipe
ARMS = {
    "ten, zero": {"trunk.extra": "zero"},
    "ten, mean": {"trunk.extra": "mean"},
    "rgb": {"data.bands": "rgb", "trunk": None},
}
#: Mean IoU by which ordinary pictures stay behind, at least.
MARGIN = 0.4


def measured(arm: str, steps: int, seed: int) -> dict[str, float]:
    """Train an arm, and score it on the split test."""
    # validation is left out: the last step is scored, and evaluations take time
    recipe = read_recipe(RECIPE, {**ARMS[arm], "train.steps": steps, "train.seed": seed})
    train, begun = recipe.open("train"), time.process_time()
    model = build_model(recipe, train)
    options = {name: value for name, value in vars(recipe.options).items() if not name.startswith("eval_")}
    gn.fit(model, train, progress=False, **options)
    found = gn.evaluate(model, recipe.open("test"), batch_size=8)["material"]
    return {"miou": found["miou"], "cpu_seconds": time.process_time() - begun}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean and ends over seeds, as Markdown."""
    lines = ["| arm | mean IoU | seeds | seconds of a core |", "| --- | --- | --- | --- |"]
    for arm, found in results.items():
        scores = [one["miou"] for one in found.values()]
        ends = f" ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else ""
        seconds = statistics.mean(one["cpu_seconds"] for one in found.values())
        lines.append(f"| {arm} | {statistics.mean(scores):.3f}{ends} | {len(scores)} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    if not given.table:
        torch.set_num_threads(1)
        results = kept.setdefault(f"{given.steps} steps", {})
        for seed in given.seeds:
            for arm in given.arms:
                results.setdefault(arm, {})[f"seed {seed}"] = found = measured(arm, given.steps, seed)
                print(f"{arm}, seed {seed}: {found}", file=sys.stderr)
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    for steps, results in kept.items():
        print(f"{steps}\n\n{table(results)}\n")
    means = [{arm: statistics.mean(o["miou"] for o in f.values()) for arm, f in r.items()} for r in kept.values()]
    fails = [m for m in means if "rgb" in m for arm in m if arm != "rgb" and m[arm] < m["rgb"] + MARGIN]
    return 1 if fails else 0


if __name__ == "__main__":
    sys.exit(main())
