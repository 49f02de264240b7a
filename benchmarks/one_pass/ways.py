"""A mixed batch in each of three ways: owner by owner in one pass, in one stacked product, and a pass for each owner.

    OMP_NUM_THREADS=1 python benchmarks/one_pass/ways.py
    OMP_NUM_THREADS=1 python benchmarks/one_pass/ways.py table

Every task has a LoRA (r = 8, every linear layer from a block on) and a linear head of its own; each picture of a batch
asks for one task, in turn. *Owner by owner*: rows of one owner are a slice, and its adapters run on that. *Stacked*:
every row gathers the tensors of its owner, and one product of a batch of matrices serves all, as compiled passes do it.
*Passes*: the trunk runs once for each owner. ``own`` is the way that the model itself takes. Processor time of one
thread, ways in turn, ratios within a round; results are merged by case into benchmarks/one_pass/ways.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import garnish as gn
from garnish.engine import shared_passes
from garnish.engine.context import Rows
from garnish.model.model import Model

RESULTS = Path(__file__).with_name("ways.json")
WAYS = ("owners", "stacked", "passes", "own")
TRUNKS = {"ViT-S": "vit_small_patch14_dinov2", "Swin-T": "swin_tiny_patch4_window7_224"}
SIDES = {"ViT-S": (56, 224), "Swin-T": (64, 224)}
#: (tasks, pictures of each)
BATCHES = ((2, 1), (2, 4), (4, 2), (16, 1))


def model_of(trunk: str, start: str, num_tasks: int) -> Model:
    """A LoRA a task from the first block, or from the middle of the blocks, on; moved off the identity."""
    torch.manual_seed(0)
    made = gn.backbone(TRUNKS[trunk], weights=None)
    linear = [s for s in made.sites() if s.kind == "layer" and s.role in ("qkv", "proj", "fc1", "fc2")]
    blocks = sorted({(s.stage, s.block) for s in linear})
    first = blocks[0 if start == "first" else len(blocks) // 2]
    layers = tuple(s.name for s in linear if (s.stage, s.block) >= first)
    tasks = {f"t{number:02d}": gn.Semantic(classes=4) for number in range(num_tasks)}
    model = gn.adapt(made, gn.LoRA(rank=8, layers=layers, per_task=True), tasks=tasks, head=gn.LinearHead())
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


class _Uncounted(Rows):
    """Row tables as compiled passes have them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return replace(Rows(*args, **kwargs), counts=None)


@contextmanager
def taking(way: str) -> Iterator[None]:
    """Passes are planned this way, whatever the model would do by itself."""
    group, rows = shared_passes.group_of, shared_passes.Rows
    if way != "own":
        shared_passes.group_of = lambda owner, body, **how: owner.number if way == "passes" else "rows"
    if way == "stacked":
        shared_passes.Rows = _Uncounted
    try:
        yield
    finally:
        shared_passes.group_of, shared_passes.Rows = group, rows


def measure(trunk: str, start: str, batch: tuple[int, int], side: int, training: bool, rounds: int) -> dict[str, Any]:
    """Seconds of each way, over "owners" within a round, and how far outputs are apart."""
    num_tasks, each = batch
    model = model_of(trunk, start, num_tasks).train(training)
    count = num_tasks * each
    x = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    names = list(model.tasks)
    asked = [[names[number % num_tasks]] for number in range(count)]

    def run(way: str) -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        began = time.thread_time()
        with taking(way), torch.set_grad_enabled(training):
            out = model(x, asked)
        if training:
            torch.stack([value.float().square().mean() for value in out.values()]).sum().backward()
        return time.thread_time() - began, {name: value.detach() for name, value in out.items()}

    found = {way: run(way)[1] for way in WAYS}
    apart = max(float((found[way][n] - found["owners"][n]).abs().max()) for way in WAYS for n in names)
    assert apart < 1e-3, f"{trunk} {start} {batch} {side}: the ways differ by {apart}"
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS[:: 1 if number % 2 else -1]:
            taken[way].append(run(way)[0])
    over = {way: [a / b for a, b in zip(taken[way], taken["owners"], strict=True)] for way in WAYS}
    return {
        "seconds": {way: statistics.median(spent) for way, spent in taken.items()},
        "over": {way: statistics.quantiles(ratios, n=4) for way, ratios in over.items()},
        "apart": apart,
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: the medians over "owners"."""
    lines = ["| trunk | from | tasks × pictures | side | | stacked | passes | the model's own |", "| --- " * 8 + "|"]
    for key, one in found["cases"].items():
        trunk, start, num_tasks, each, side, mode = key.split("/")
        cells = [f"{one['over'][way][1]:.2f}" for way in ("stacked", "passes", "own")]
        lines.append(f"| {trunk} | {start} | {num_tasks} × {each} | {side}² | {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every case, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "table"), default="measure")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--trunks", nargs="+", choices=list(TRUNKS), default=list(TRUNKS))
    parser.add_argument("--starts", nargs="+", choices=("first", "middle"), default=["first", "middle"])
    options = parser.parse_args()
    if options.what == "table":
        print(table(json.loads(RESULTS.read_text())))
        return
    torch.set_num_threads(1)
    cases: dict[str, Any] = {}
    for trunk in options.trunks:
        for start in options.starts:
            for batch in BATCHES:
                for side in SIDES[trunk]:
                    for mode in ("pass", "training step"):
                        large = side == max(SIDES[trunk])
                        rounds = max(3, options.rounds // 3) if large else options.rounds
                        key = "/".join(map(str, (trunk, start, *batch, side, mode)))
                        cases[key] = measure(trunk, start, batch, side, mode != "pass", rounds)
                        print(key, {way: round(q[1], 2) for way, q in cases[key]["over"].items()}, flush=True)
    former = json.loads(RESULTS.read_text())["cases"] if RESULTS.exists() else {}
    found = {"torch": torch.__version__, "rounds": options.rounds, "cases": {**former, **cases}}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
