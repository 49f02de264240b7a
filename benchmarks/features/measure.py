"""Training from kept trunk features on CamVid: step rates, and what heads reach in equal time.

    python benchmarks/features/measure.py steps [--pairs 6] [--pictures 16]     # seconds of a step without and with
    python benchmarks/features/measure.py quality [--seconds 600] [--filled]    # heads only: validation mIoU
    python benchmarks/features/measure.py table                                 # prints what has been measured

Encoder, head, batch, augmentation and size are those of recipes/camvid.yaml. Steps without and with the cache alternate
in one process, so that slow stretches of the machine fall on both; the cache is filled before (so: from the second
epoch on). Equal time: every run gets the same seconds of one core (of the processor, so that other work on the machine
takes nothing from it) and a learning rate that falls over them; an empty cache is filled within them, or (--filled)
before, as where a search of rates and seeds shares it. Scored are validation pictures, every 4th, at the end. Results
are kept in benchmarks/features/results.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

import garnish as gn
from garnish.data.augment import Augment
from garnish.data.dataset import Batch, Dataset
from garnish.data.loader import StepBatches
from garnish.data.subset import thinned
from garnish.model.model import Model
from garnish.training.feature_cache import CachedBatches, CachedTrunk, FeatureCache

HERE = Path(__file__).resolve()
RESULTS = HERE.with_name("results.json")
SHARED = HERE.parents[2].parent / "shared"
WEIGHTS = SHARED / "weights" / "depth_anything_v2_vits_encoder" / "model.safetensors"
SIZE, BATCH, RATE = (224, 280), 4, 1e-3
AUGMENT = Augment(size=SIZE, scale=(1.0, 1.5), colour=0.2)
ARMS = ("heads only", "SideTuning", "Partial(blocks=1)", "LoRA, last block")


def method_of(arm: str) -> Any:
    """The method of an arm."""
    last = tuple(f"stages.3.blocks.2.{layer}" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"))
    return {
        "heads only": gn.Frozen(),
        "SideTuning": gn.SideTuning(),
        "Partial(blocks=1)": gn.Partial(blocks=1),
        "LoRA, last block": gn.LoRA(rank=8, layers=last),
    }[arm]


def data(split: str) -> Dataset:
    """A split of CamVid."""
    return gn.folder(HERE.parents[2] / "recipes" / "data" / "camvid.yaml", split)


def build(arm: str, seed: int = 0) -> Model:
    """A fresh model in training mode."""
    torch.manual_seed(seed)
    trunk = gn.backbone("vit_small_patch14_dinov2", str(WEIGHTS))
    tasks = dict(data("train").tasks)
    return gn.adapt(trunk, method_of(arm), tasks).train()


class Steps:
    """Training steps of a model, timed by part."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.trained_parameters().values(), RATE, weight_decay=0.05, fused=True)

    def one(self, batches: Iterator[Batch], factor: float = 1.0) -> dict[str, float]:
        """Seconds of loading, forward pass, loss, backward pass and update; ``factor`` is that of the learning rate."""
        at = [time.perf_counter()]
        batch = next(batches)
        at.append(time.perf_counter())
        outputs = self.model(batch.images, batch.tasks_of_rows(), batch.start)
        at.append(time.perf_counter())
        tasks = self.model.tasks
        loss = torch.stack([tasks[n].loss(tasks[n].sums(o, batch.targets[n])) for n, o in outputs.items()]).sum()
        at.append(time.perf_counter())
        loss.backward()
        at.append(time.perf_counter())
        self.optimizer.param_groups[0]["lr"] = RATE * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        at.append(time.perf_counter())
        spans = [end - start for start, end in pairwise(at)]
        return dict(zip(("loading", "forward", "loss", "backward", "update"), spans, strict=True)) | {
            "step": at[-1] - at[0]
        }


def cached(model: Model, source: StepBatches, folder: Path, gb: float) -> CachedBatches:
    """The batches of a source with kept states."""
    fabric = Fabric(accelerator="cpu", devices=1)
    return CachedBatches(FeatureCache(folder, gb, print), CachedTrunk(model, list(model.tasks), fabric), source)


def command_steps(args: argparse.Namespace) -> None:
    """Alternate steps without and with the cache."""
    train = thinned(data("train"), limit=args.pictures)
    for arm in args.arms:
        model = build(arm)
        with tempfile.TemporaryDirectory() as folder:
            fresh = StepBatches(train, BATCH, augment=AUGMENT)
            kept = cached(model, StepBatches(train, BATCH, augment=AUGMENT, variants=1), Path(folder), 8.0)
            for _ in kept.batches(0, -(-args.pictures // BATCH)):
                pass
            bytes_each = kept.pictures.cache.used / args.pictures
            first = args.pictures // BATCH
            streams = {
                "without": fresh.batches(0, args.pairs + 1),
                "with": kept.batches(first, first + 3 * args.pairs + 1),
            }
            steps = Steps(model)
            times: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
            ratios = []
            for pair in range(args.pairs + 1):  # the first one warms up
                one = steps.one(streams["without"])
                few = [steps.one(streams["with"]) for _ in range(3 if pair else 1)]
                if pair:
                    times["without"].append(one)
                    times["with"] += few
                    ratios.append(one["step"] / statistics.median(f["step"] for f in few))
            quartiles = statistics.quantiles(ratios, n=4)
            found = {
                which: {part: statistics.median(t[part] for t in all_) for part in all_[0]}
                for which, all_ in times.items()
            }
        save(
            f"steps/{arm}",
            {"pairs": args.pairs, "times_faster": statistics.median(ratios), "quartiles": [quartiles[0], quartiles[2]]}
            | {"median_seconds": found, "bytes_a_picture": round(bytes_each), "load": os.getloadavg()[0]},
        )


def command_quality(args: argparse.Namespace) -> None:
    """Heads only, for equal seconds: without the cache, and with it in 1, 2 and 4 versions of each picture."""
    val = thinned(data("val"), every=4)
    train = thinned(data("train"), every=args.every)
    for seed in args.seeds:
        for variants in (None, *args.variants):
            model = build("heads only", seed)
            with tempfile.TemporaryDirectory() as folder:
                source = StepBatches(train, BATCH, seed=seed, augment=AUGMENT, variants=variants)
                made = source if variants is None else cached(model, source, args.folder or Path(folder), args.gb)
                if variants is not None and args.filled:
                    for _ in made.batches(0, variants * source.steps_per_epoch):
                        pass
                steps, count = Steps(model), 0
                batches = made.batches(0, 10**9)
                start = time.process_time()
                while (share := (time.process_time() - start) / args.seconds) < 1:
                    warm = min(1.0, (count + 1) / 20)
                    steps.one(batches, warm * 0.5 * (1 + math.cos(math.pi * share)))
                    count += 1
            scores = gn.evaluate(model, val, size=SIZE, batch_size=BATCH)
            what = "fresh" if variants is None else f"variants {variants}"
            filled = "filled" if args.filled else "empty"
            save(
                f"quality/{len(train)} pictures, {args.seconds:g} s, {filled}/{what}/seed{seed}",
                {"miou": scores["seg"]["miou"], "steps": count, "load": os.getloadavg()[0]},
            )


def command_table(args: argparse.Namespace) -> None:
    """Print what has been measured as Markdown."""
    found = read()
    print("| trained | seconds a step without | with | times faster (quartiles) | MB a picture |")
    print("| --- | --- | --- | --- | --- |")
    for key, v in found.items():
        if key.startswith("steps/"):
            seconds = {which: parts["step"] for which, parts in v["median_seconds"].items()}
            low, high = v["quartiles"]
            print(
                f"| {key.split('/')[1]} | {seconds['without']:.3f} | {seconds['with']:.3f} |"
                f" {v['times_faster']:.1f} ({low:.1f} to {high:.1f}) | {v['bytes_a_picture'] / 1e6:.1f} |"
            )
    print("\n| training pictures, time, cache at the start | versions | steps | val mIoU |\n| --- | --- | --- | --- |")
    grouped: dict[tuple[str, str], list[dict]] = {}
    for key, v in found.items():
        if key.startswith("quality/"):
            _, seconds, what, _ = key.split("/")
            grouped.setdefault((seconds, what), []).append(v)
    for (seconds, what), runs in grouped.items():
        scores = [run["miou"] for run in runs]
        spread = f" ({min(scores):.3f} to {max(scores):.3f}, {len(scores)} seeds)" if len(scores) > 1 else " (one seed)"
        steps = statistics.mean(run["steps"] for run in runs)
        print(f"| {seconds} | {what} | {steps:.0f} | {statistics.mean(scores):.3f}{spread} |")


def read() -> dict[str, Any]:
    """Everything measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(key: str, value: dict[str, Any]) -> None:
    """Add one result; the environment stands beside it."""
    machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    found = read() | {key: {**value, **machine, "cores": os.cpu_count()}}
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(key, json.dumps(value), flush=True)


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["steps", "quality", "table"])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--every", type=int, default=1, help="train on every n-th picture")
    parser.add_argument("--filled", action="store_true", help="fill the cache before the clock starts")
    parser.add_argument("--folder", type=Path, help="of the cache, kept for later runs (version 0 is always the same)")
    parser.add_argument("--gb", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    {"steps": command_steps, "quality": command_quality, "table": command_table}[args.command](args)


if __name__ == "__main__":
    main()
