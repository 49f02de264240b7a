"""The CamVid recipe at two levels of memory, three seeds each: its score, and the most memory that the process took.

    OMP_NUM_THREADS=1 python benchmarks/camvid/levels.py          # about six minutes a run, six runs
    python benchmarks/camvid/levels.py table

Each run is a process of its own, as ``garnish train`` starts it; the peak is the resident memory of that process, with
Python, torch and the pictures in it. Results are kept in benchmarks/camvid/levels.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("levels.json")
LEVELS = ("lean", "fast")


def run(level: str, seed: int, out: Path) -> dict[str, Any]:
    """Train in this process."""
    from garnish.bundles.bundle_json import read_bundle_json
    from garnish.cli import main

    recipe = str(ROOT / "recipes" / "camvid.yaml")
    began = time.process_time()
    words = ["--config", recipe, "--train.memory", level, "--train.seed", str(seed), "--out", str(out)]
    if main(["train", *words]):
        raise SystemExit(f"{level}, seed {seed}: garnish train failed")
    return {
        "level": level,
        "seed": seed,
        "miou": read_bundle_json(out / "best")["metrics"]["seg"]["miou"],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "processor_seconds": round(time.process_time() - began, 1),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| `train.memory` | mIoU, seeds 0, 1, 2 | peak of the process, GB | processor time, s |",
        "| --- " * 4 + "|",
    ]
    for level in LEVELS:
        mine = sorted((one for one in found if one["level"] == level), key=lambda one: one["seed"])
        scores = ", ".join(f"{one['miou']:.4f}" for one in mine)
        peaks = ", ".join(f"{one['peak_bytes'] / 1e9:.2f}" for one in mine)
        spent = ", ".join(f"{one['processor_seconds']:.0f}" for one in mine)
        lines.append(f"| {level} | {scores} | {peaks} | {spent} |")
    return "\n".join(lines)


def main() -> None:
    """Run all, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "table", "one"), default="measure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--level", choices=LEVELS, help="of one")
    options = parser.parse_args()
    if options.what == "table":
        print(table(json.loads(RESULTS.read_text())))
    elif options.what == "one":
        with tempfile.TemporaryDirectory() as folder:
            result = run(options.level, options.seeds[0], Path(folder) / "run")
        print(json.dumps(result))
    else:
        found = []
        for seed in options.seeds:
            for level in LEVELS:
                words = [sys.executable, __file__, "one", "--level", level, "--seeds", str(seed)]
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
                print(found[-1], flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
