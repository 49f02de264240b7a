"""One source tree beside another: training steps, bytes, and what it takes to add, load and remove the n-th owner.

    python benchmarks/engine/measure.py --old ../before [--pairs 21] [--only steps] [--limit 1000] [--old-limit 130]

A worker process a tree, spoken to over pipes; only one works at a time. Steps (forward, a loss of every output value,
backward, AdamW; batch 2 at 224², random weights, one thread) alternate between the workers, and the ratio new / old is
taken within each pair, in processor time. Bytes kept are of distinct storages that a training pass keeps for its
backward pass, parameters left out; peak bytes are the most that was allocated during a step, beyond what was before.

Owners: LoRA of one task of two classes, with a linear head, is added to one ViT-S over and over. Times are medians of
nine calls around the n-th (of fresh models for the first), in processor time. Where a model can load a bundle or remove
tasks, one bundle is loaded and removed nine times beside the n - 1 others; a pass of one task beside them is timed too.
Results go to benchmarks/engine/results.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
from trees import Worker, answer  # noqa: E402  (beside this folder)

RESULTS = Path(__file__).with_name("results.json")
TRUNKS = {"ViT-S": "vit_small_patch16_224", "Swin-T": "swin_tiny_patch4_window7_224"}
#: method → tasks of the model
METHODS = {"LoRA": ("seg",), "MTLoRA": ("seg", "depth"), "VMTAdapter": ("seg", "depth")}
MARKS = (1, 10, 100, 1000)
#: calls that one time is the median of
AROUND = 9
WARM_UP = 3


# ---- in a worker: only what users of the package call, so that it runs in any tree -----------------------------------


class Steps:
    """One model in training, of this worker's tree."""

    def __init__(self, trunk: str, method: str, batch: int) -> None:
        import torch

        import garnish as gn

        torch.manual_seed(0)
        tasks = {"seg": gn.Semantic(classes=21), "depth": gn.Depth(max_metres=10)}
        chosen = {name: tasks[name] for name in METHODS[method]}
        self.model = gn.adapt(gn.backbone(TRUNKS[trunk]), getattr(gn, method)(), chosen).train()
        self.images = torch.rand(batch, 3, 224, 224)
        self.optimizer = torch.optim.AdamW(self.model.trained_parameters().values(), lr=1e-4)

    def _loss(self) -> Any:
        return sum(out.square().mean() for out in self.model(self.images).values())

    def step(self) -> float:
        """Seconds of processor time, of all threads of this process."""
        start = time.process_time()
        self.optimizer.zero_grad()
        self._loss().backward()
        self.optimizer.step()
        return time.process_time() - start

    def bytes(self) -> dict[str, int]:
        """Kept for backward, and at most in a step."""
        return {"kept": self._kept(), "peak": self._peak()}

    def _kept(self) -> int:
        import torch

        own = (*self.model.parameters(), *self.model.backbone.frozen_tensors().values())
        known = {tensor.untyped_storage().data_ptr() for tensor in own}
        kept: dict[int, int] = {}
        alive = []  # a freed storage's address would be used again and counted once

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
                alive.append(storage)
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._loss()
        return sum(kept.values())

    def _peak(self) -> int:
        from torch.profiler import ProfilerActivity, profile

        self.step()  # the optimizer's state is there from here on
        self.optimizer.zero_grad()  # of memory that was there before, the profiler would not see it freed
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as done:
            self.step()
        with tempfile.TemporaryDirectory() as place:
            done.export_chrome_trace(f"{place}/trace.json")
            events = json.loads(Path(f"{place}/trace.json").read_text("utf-8"))["traceEvents"]
        moves = sorted(((e["ts"], e["args"]) for e in events if e["name"] == "[memory]"), key=lambda move: move[0])
        held = [args["Total Allocated"] for _, args in moves if args["Device Type"] == 0]
        return int(max(held) - (held[0] - moves[0][1]["Bytes"]))


class Owners:
    """One ViT-S to which owners are added, of this worker's tree."""

    def __init__(self) -> None:
        gc.disable()  # the collector of garbage looks at all that is there
        self.model = self._bare()
        self.added = 0

    def _bare(self) -> Any:
        import torch

        import garnish as gn

        torch.manual_seed(0)
        return gn.Model(gn.backbone(TRUNKS["ViT-S"])).eval()

    @staticmethod
    def _add(model: Any, name: str) -> float:
        import garnish as gn

        method, tasks, head = gn.LoRA(), {name: gn.Semantic(classes=2)}, gn.LinearHead()
        return _timed(lambda: model.add(method, tasks, head))

    def first(self) -> float:
        """Seconds to add the first owner to a fresh model."""
        return self._add(self._bare(), "first")

    def add(self) -> float:
        """Seconds to add the next one."""
        self.added += 1
        return self._add(self.model, f"task{self.added}")

    def run(self) -> float:
        """Seconds of a pass of one task beside all others, on a picture of 64 x 64."""
        import torch

        images = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            return _median(lambda: _timed(lambda: self.model(images, ["task1"])))

    def load_and_remove(self) -> dict[str, float | None]:
        """Seconds to load a bundle beside those that are there, and to remove its task; None where a tree cannot."""
        load, remove = getattr(self.model, "load", None), getattr(self.model, "remove", None)
        if load is None or remove is None:
            return {"load": None, "remove": None}
        other = self._bare()
        self._add(other, "loaded")
        with tempfile.TemporaryDirectory() as place:
            bundle = other.save(f"{place}/bundle")
            times = [(_timed(lambda: load(bundle)), _timed(lambda: remove(["loaded"]))) for _ in range(AROUND + 1)]
        loads, removals = zip(*times[1:], strict=True)  # the first one imports
        return {"load": statistics.median(loads), "remove": statistics.median(removals)}


def _timed(call: Callable[[], object]) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def _median(call: Callable[[], float]) -> float:
    call()
    return statistics.median(call() for _ in range(AROUND))


# ---- the parent ------------------------------------------------------------------------------------------------------


def compare_steps(old: Worker, new: Worker, trunk: str, method: str, pairs: int, batch: int) -> dict[str, Any]:
    """Step times of both, alternating, and their bytes."""
    for worker in (old, new):
        worker.ask("Steps", trunk, method, batch)
    times: dict[str, list[float]] = {"old": [], "new": []}
    workers = {"old": old, "new": new}
    for pair in range(-WARM_UP, pairs):
        for side in ("old", "new") if pair % 2 else ("new", "old"):
            taken = workers[side].ask("step")
            if pair >= 0:
                times[side].append(taken)
    ratios = [n / o for n, o in zip(times["new"], times["old"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "new_over_old": round(middle, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "pairs": pairs,
        "seconds": {side: round(statistics.median(taken), 4) for side, taken in times.items()},
        "bytes": {side: worker.ask("bytes") for side, worker in workers.items()},
    }


def curve(worker: Worker, limit: int) -> dict[str, Any]:
    """Seconds to add the n-th owner, and of what is done beside n - 1 others, over those of the first."""
    worker.ask("Owners")
    worker.ask("first")  # imports
    firsts = [worker.ask("first") for _ in range(AROUND)]
    marks = [mark for mark in MARKS if mark < limit] + [limit]
    added: list[float] = []
    found: dict[str, Any] = {}
    for mark in marks:
        while len(added) < mark - 1:
            added.append(worker.ask("add"))
        row = worker.ask("load_and_remove")
        added.append(worker.ask("add"))
        row["run"] = worker.ask("run")
        while len(added) < mark + AROUND // 2:
            added.append(worker.ask("add"))
        around = firsts if mark == 1 else added[mark - 1 - AROUND // 2 : mark + AROUND // 2]
        found[str(mark)] = {"add": statistics.median(around), **row}
    start = found["1"]
    for row in found.values():
        times = [(what, seconds) for what, seconds in row.items() if seconds is not None]
        row |= {f"{what}_over_first": round(seconds / start[what], 3) for what, seconds in times}
    return found


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="source tree to measure against")
    parser.add_argument("--tree", type=Path, default=ROOT, help="source tree to measure; this one when left out")
    parser.add_argument("--only", choices=("steps", "owners"), help="the other's results stay as they are")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--limit", type=int, default=MARKS[-1], help="owners to add in the tree that is measured")
    parser.add_argument("--old-limit", type=int, default=130, help="and in the other one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(given)
    if args.worker:
        answer({"Steps": Steps, "Owners": Owners})
        return
    if args.old is None:
        parser.error("--old PATH is needed: a checkout of the tree to measure against")
    old, new = Worker(args.old.resolve(), __file__), Worker(args.tree.resolve(), __file__)
    found = json.loads(args.out.read_text("utf-8")) if args.out.exists() else {}
    load = [round(os.getloadavg()[0], 1)]
    if args.only != "owners":
        rows = found["steps"] = {}
        for trunk in TRUNKS:
            for method in METHODS:
                rows[f"{method}, {trunk}"] = compare_steps(old, new, trunk, method, args.pairs, args.batch)
                print(method, trunk, json.dumps(rows[f"{method}, {trunk}"]), flush=True)
    if args.only != "steps":
        found["owners"] = {}
        for side, worker, limit in (("old", old, args.old_limit), ("new", new, args.limit)):
            found["owners"][side] = curve(worker, limit)
            print(side, json.dumps(found["owners"][side]), flush=True)
    for worker in (old, new):
        worker.close()
    found["machine"] = {
        "cores": os.cpu_count(),
        "load": [*load, round(os.getloadavg()[0], 1)],
        "torch": new.facts["torch"],
        "python": platform.python_version(),
        "batch": args.batch,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
