"""What Ray adds to a sweep: the wall time of one with ``--jobs 2`` against the same one with ``--on ray --jobs 2``.

python benchmarks/machines/sweep.py [--minutes 10] [--rounds 1] [--out benchmarks/machines/sweep.json]

Both run on this machine, one after the other, in processes of their own: a MiT-b0 without pretrained weights' file but
with seeded ones, on scenes; heads only and LoRA, two rates, two seeds, so six runs and four measurements. Steps a run
are chosen so that the sweep takes about ``--minutes`` with ``--jobs 2``, by a short sweep before it. The start of the
cluster is timed apart; results must be equal to the digit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__)
#: In results.json, what is of the clock.
TIMES = {"created", "wall_seconds", "seconds", "step_seconds", "step_ratio", "command", "environment"}
SIZE, BATCH = 64, 4
#: Runs that two processes train one after the other.
_RUNS_EACH = 3


def sweep(way: str, folder: Path, weights: Path, steps: int) -> dict[str, Any]:
    """Seconds of a sweep, its results and the load before it; in this process."""
    from garnish.cluster.connecting import connected
    from garnish.cluster.recruiting import on_ray
    from garnish.comparing.compare import compare
    from garnish.comparing.compare_options import read_options
    from garnish.comparing.conditions import Conditions
    from garnish.comparing.typed_json import as_json
    from garnish.recipes.recipe import read_recipe

    plain = {
        "backbone": {"name": "mit_b0", "weights": str(weights)},
        "head": "LinearHead",
        "tasks": ["seg", "depth"],
        "data": {"name": "scenes", "train": 64, "val": 8, "test": 8, "size": SIZE},
        "train": {"steps": steps, "batch_size": BATCH, "eval_every": max(steps // 4, 1), "log": []},
    }
    given = {"adapters": "LoRA", "references": ["frozen"], "seeds": 2, "rates": [1e-3, 3e-3], "widen": 0}
    given |= {"jobs": 2, "pictures": False, "out": str(folder)}
    conditions = Conditions(read_recipe(None, plain), read_options(None, given))
    load = os.getloadavg()[0]
    begun = time.perf_counter()
    if way == "jobs":
        found = compare(conditions, quiet=True)
        return {"seconds": time.perf_counter() - begun, "start": 0.0, "load": load, "results": as_json(found)}
    with connected("ray"):
        start = time.perf_counter() - begun
        found = compare(conditions, quiet=True, recruits=on_ray("ray", jobs=2, cpus=None, gpus=None))
    return {"seconds": time.perf_counter() - begun, "start": start, "load": load, "results": as_json(found)}


def in_process(way: str, weights: Path, steps: int) -> dict[str, Any]:
    """:func:`sweep` in a process of its own, with a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "told.json"
        words = [sys.executable, str(HERE), "--way", way, "--weights", str(weights), "--steps", str(steps)]
        subprocess.run([*words, "--out", str(out)], check=True)
        told: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return told


def without_times(found: Any) -> Any:
    """Results without what is of the clock."""
    if isinstance(found, dict):
        return {key: without_times(value) for key, value in found.items() if key not in TIMES}
    return [without_times(value) for value in found] if isinstance(found, list) else found


def seeded_weights(file: Path) -> Path:
    """Weights of a MiT-b0 from a seed, in a file, for a comparison needs a trunk that has some."""
    import torch
    from safetensors.torch import save_file

    from garnish.backbones.build import backbone

    torch.manual_seed(0)
    trunk = backbone("mit_b0")
    save_file({n: getattr(m, leaf).detach().contiguous() for n, m, leaf in trunk.named_slots()}, file)
    return file


def measure(minutes: float, rounds: int) -> dict[str, Any]:
    """All rounds; the order of the two ways alternates."""
    with tempfile.TemporaryDirectory() as folder:
        weights = seeded_weights(Path(folder) / "weights.safetensors")
        short = in_process("jobs", weights, 8)
        trained = [run["seconds"] for arm in short["results"]["arms"] for run in arm["runs"]]
        step = max(sum(trained) / len(trained) / 8, 1e-3)
        steps = max(int(minutes * 60 / _RUNS_EACH / step), 8)
        print(f"{steps} steps a run, of {step:.3f} s", flush=True)
        found: list[dict[str, Any]] = []
        for number in range(rounds):
            both = {}
            for way in ("jobs", "ray") if number % 2 == 0 else ("ray", "jobs"):
                both[way] = in_process(way, weights, steps)
                print(way, f"{both[way]['seconds']:.1f} s, load {both[way]['load']:.1f}", flush=True)
            jobs, ray = both["jobs"], both["ray"]
            found.append(
                {
                    "jobs_seconds": round(jobs["seconds"], 1),
                    "ray_seconds": round(ray["seconds"], 1),
                    "cluster_start_seconds": round(ray["start"], 1),
                    "ratio": round((ray["seconds"] - ray["start"]) / jobs["seconds"], 3),
                    "ratio_with_start": round(ray["seconds"] / jobs["seconds"], 3),
                    "load_before": [round(jobs["load"], 1), round(ray["load"], 1)],
                    "equal": without_times(jobs["results"]) == without_times(ray["results"]),
                }
            )
    return {"steps": steps, "rounds": found}


def main() -> None:
    """Measure, or (for :func:`in_process`) do one sweep."""
    reading = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reading.add_argument("--minutes", type=float, default=10.0)
    reading.add_argument("--rounds", type=int, default=1)
    reading.add_argument("--out", type=Path, default=HERE.with_suffix(".json"))
    reading.add_argument("--way", choices=("jobs", "ray"), help=argparse.SUPPRESS)
    reading.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    reading.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    given = reading.parse_args()
    if given.way is not None:
        with tempfile.TemporaryDirectory() as folder:
            told = sweep(given.way, Path(folder) / "report", given.weights, given.steps)
    else:
        machine = {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()}
        told = {"minutes": given.minutes, "machine": machine, "ray": version("ray"), "torch": version("torch")}
        told |= measure(given.minutes, given.rounds)
        print(json.dumps(told, indent=1))
    given.out.write_text(json.dumps(told, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
