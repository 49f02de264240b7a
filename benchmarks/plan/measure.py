"""What a plan says of a training step against a process of its own: memory and time, six methods on three trunks.

    OMP_NUM_THREADS=1 python benchmarks/plan/measure.py [--steps 7] [--batch 2] [--only ViT-S/16]
    python benchmarks/plan/measure.py --table       # writes the table of docs/plan.md anew

Random weights at 224², four tasks with 21, 7, 1 and 3 outputs, linear heads, default options. Each case is planned here
(memory predicted, time measured beside heads only), and right after it measured in a process of its own. Memory is the
largest resident size during the steps less that just before the model was built, after a tiny one had made a step, with
glibc's malloc as it is ("memory") and told to give back at once what is free ("tensors", MALLOC_MMAP_THRESHOLD_=65536,
which costs time); time is the median of the steps after the second, and the ratio that over heads only's. One thread,
and seconds of the processor on both sides, so that other processes on the machine count as little as they can. Results
go to benchmarks/plan/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import garnish as gn
from garnish import registry
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep
from garnish.planning.memory import baseline_bytes
from garnish.planning.shaped_trunk import ShapedTrunk
from garnish.planning.step_cost_prediction import PredictedStep, predict_step
from garnish.planning.stopwatch import Stopwatch, now

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "plan.md"
BEGIN, END = "<!-- written by benchmarks/plan/measure.py -->\n", "<!-- end of what is written -->\n"
TRUNKS = {"ViT-S/16": "vit_small_patch16_224", "Swin-T": "swin_tiny_patch4_window7_224", "MiT-B0": "mit_b0"}
METHODS = ("Frozen", "LoRA", "AdaptFormer", "VMTAdapter", "MTLoRA", "SideTuning")
SIZE = (224, 224)
#: Title of a column, and what its figures are multiplied by and rounded to.
COLUMNS = {
    "tensor_bytes": ("tensors MB", 1e-6, 0),
    "memory_bytes": ("memory MB", 1e-6, 0),
    "step_seconds": ("step s", 1.0, 3),
    "step_ratio": ("× heads", 1.0, 2),
}
#: With it glibc's malloc keeps nothing that is free: what a process takes is then what its tensors hold.
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def tasks() -> dict[str, Any]:
    return {
        "seg": gn.Semantic(classes=21),
        "parts": gn.Semantic(classes=7),
        "saliency": gn.Saliency(),
        "normals": gn.Normals(),
    }


def peak_resident() -> int:
    """Largest resident size since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measured(trunk: str, method: str, batch: int, steps: int) -> dict[str, float]:
    """Real steps, in this process."""
    before = baseline_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the largest size is counted from here
    model = gn.adapt(gn.backbone(TRUNKS[trunk]), registry.build("adapters", method), tasks())
    step = ExampleStep(model, batch, SIZE)
    taken = []
    for _ in range(2 + steps):
        start = now()
        step()
        taken.append(now() - start)
    return {"memory_bytes": peak_resident() - before, "step_seconds": statistics.median(taken[2:])}


def apart(words: list[str], steps: int, environment: dict[str, str]) -> dict[str, float]:
    """The same in a process of its own."""
    words = [*words, "--steps", str(steps)]
    out = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ | environment).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def planned(setting: Setting, method: str, stopwatch: Stopwatch) -> dict[str, float]:
    """What ``garnish plan`` says."""
    made = registry.build("adapters", method)
    found = stopwatch.timed(predict_step(setting, made), made)
    assert isinstance(found, PredictedStep), found
    return {name: getattr(found, name) for name in ("tensor_bytes", "memory_bytes", "step_seconds", "step_ratio")}


def cells(trunk: str, method: str, rows: dict[str, Any]) -> str:
    """One line of the table."""
    row, shown = rows[method], [trunk, method]
    if "step_ratio" in row["planned"]:
        beside = rows["Frozen"]["measured"]["step_seconds"]
        row["measured"]["step_ratio"] = row["measured"]["step_seconds"] / beside
    for key, (_, scale, digits) in COLUMNS.items():
        if key in row["planned"]:
            one, other = row["planned"][key], row["measured"][key]
            shown += [f"{one * scale:.{digits}f}", f"{other * scale:.{digits}f}", f"{100 * (one / other - 1):+.0f} %"]
    return f"| {' | '.join(shown)} |"


def table(found: dict[str, Any]) -> list[str]:
    """What docs/plan.md shows; without time where that was not measured on the version at hand."""
    machine, run = found["machine"], found["run"]
    known = next(iter(found["trunks"].values()))["Frozen"]["planned"]
    titles = [f"{title}, planned | own process | off by" for key, (title, _, _) in COLUMNS.items() if key in known]
    return [
        f"| trunk | method | {' | '.join(titles)} |",
        f"|---|---|{'---|' * 3 * len(titles)}",
        *(cells(trunk, method, rows) for trunk, rows in found["trunks"].items() for method in rows),
        "",
        f"`benchmarks/plan/measure.py`: {run['batch']} pictures of 224², {run['steps']} steps, one thread of",
        f"{machine['processor']}, torch {machine['torch']}; other work on the machine (load up to",
        f"{max(machine['load']):.0f} on {machine['cores']} cores).",
    ]


def write_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    made = "\n".join(table(json.loads(RESULTS.read_text())))
    PAGE.write_text(before + BEGIN + "\n" + made + "\n\n" + END + rest.partition(END)[2], encoding="utf-8")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(TRUNKS))
    parser.add_argument("--case", nargs=2, metavar=("TRUNK", "METHOD"), help="measure one here, and print it")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        return write_table()
    if args.case:
        return print(json.dumps(measured(*args.case, args.batch, args.steps)))
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    load = []
    for trunk in args.only:
        setting = Setting(ShapedTrunk(TRUNKS[trunk]), tasks(), None, args.batch, SIZE)
        stopwatch = Stopwatch(setting)
        rows = found.setdefault("trunks", {}).setdefault(trunk, {})
        for method in METHODS:
            ours = planned(setting, method, stopwatch)
            words = [sys.executable, __file__, "--case", trunk, method]
            words += ["--batch", str(args.batch)]
            theirs = apart(words, args.steps, {}) | {"tensor_bytes": apart(words, 1, GIVING_BACK)["memory_bytes"]}
            rows[method] = {"planned": ours, "measured": theirs}
            load.append(os.getloadavg()[0])
            print(cells(trunk, method, rows), flush=True)
    found["machine"] = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "load": [round(value, 1) for value in load],
        "torch": str(torch.__version__),
    }
    found["run"] = {"steps": args.steps, "batch": args.batch}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
