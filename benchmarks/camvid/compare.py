"""garnish beside plain timm + PEFT on CamVid, in one process: step time, bytes kept for backward, mean IoU.

    python benchmarks/camvid/compare.py steps                      # alternating pairs of steps, bytes for backward
    python benchmarks/camvid/compare.py quality --only lora        # three seeds of both sides
    python benchmarks/camvid/compare.py quality --only references  # frozen, full fine-tuning (four rates), from scratch
    python benchmarks/camvid/compare.py table                      # prints the tables of what has been run

Results are kept in benchmarks/camvid/results.json; a run that is in it is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import plain_peft as plain
import torch
from torch import Tensor, nn

import garnish as gn
from garnish.model.report import bytes_for_backward

RESULTS = Path(__file__).with_name("results.json")
RATES = {"lora": 1e-3, "full": (1e-5, 3e-5, 1e-4, 3e-4), "scratch": 3e-4}


class Ours(nn.Module):
    """A garnish model of one task as a plain segmenter."""

    def __init__(self, arm: str) -> None:
        super().__init__()
        weights = None if arm == "scratch" else str(plain.WEIGHTS)
        method = {"lora": gn.LoRA(rank=8, alpha=16.0), "frozen": gn.Frozen()}.get(arm, gn.FullFineTuning())
        trunk = gn.backbone("vit_small_patch14_dinov2", weights)
        self.model = gn.adapt(trunk, method, tasks={"seg": gn.Semantic(classes=plain.CLASSES)})

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, classes, H, W)."""
        return self.model(images)["seg"]


HEADS = {"plain": "head", "garnish": "decoders"}


def build(side: str, arm: str, seed: int) -> nn.Module:
    """A fresh model of one side, in training mode."""
    torch.manual_seed(seed)
    return (plain.Segmenter(arm) if side == "plain" else Ours(arm)).train()


def kept_for_backward(model: nn.Module, batch: tuple[Tensor, Tensor]) -> int:
    """Bytes that a training forward pass keeps for the backward pass, parameters left out."""

    def forward() -> Tensor:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], ignore_index=plain.IGNORE)

    return bytes_for_backward(forward, model.parameters())


def command_steps(args: argparse.Namespace) -> None:
    """Alternate single steps of both sides on the same batches."""
    data = plain.load("train")
    models = {side: build(side, "lora", 0) for side in ("plain", "garnish")}
    optimizers = {s: torch.optim.AdamW(plain.groups(m, args.lr, args.head_lr, HEADS[s])) for s, m in models.items()}
    kept = {s: kept_for_backward(m, plain.batch_at(data, 0, 0)) for s, m in models.items()}
    times: dict[str, list[float]] = {"plain": [], "garnish": []}
    for pair in range(-3, args.pairs):  # three pairs to warm up
        batch = plain.batch_at(data, 0, max(pair, 0))
        for side in ("plain", "garnish") if pair % 2 else ("garnish", "plain"):
            start = time.perf_counter()
            plain.step_once(models[side], optimizers[side], batch, args.bf16)
            if pair >= 0:
                times[side].append(time.perf_counter() - start)
    ratios = [g / p for g, p in zip(times["garnish"], times["plain"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    save(
        f"steps{'-bf16' if args.bf16 else ''}",
        {
            "pairs": args.pairs,
            "median_ratio": statistics.median(ratios),
            "ratio_quartiles": [quartiles[0], quartiles[2]],
            "median_seconds": {s: statistics.median(t) for s, t in times.items()},
            "bytes_for_backward": kept,
            "threads": args.threads,
        },
    )


def command_quality(args: argparse.Namespace) -> None:
    """Train and score every run that is not in the results yet."""
    train, val, test = plain.load("train"), plain.load("val", every=4), plain.load("test", every=4)
    runs: list[tuple[str, str, float, int]] = []
    if args.only in ("lora", "all"):
        runs += [(side, "lora", RATES["lora"], seed) for seed in args.seeds for side in ("garnish", "plain")]
    if args.only in ("references", "all"):
        runs += [("garnish", "frozen", 0.0, seed) for seed in args.seeds]
        runs += [("garnish", "full", rate, args.seeds[0]) for rate in RATES["full"]]
        runs += [("garnish", "scratch", RATES["scratch"], args.seeds[0])]
    for side, arm, rate, seed in runs:
        key = f"{side}/{arm}/lr{rate:g}/steps{args.steps}/{'bf16' if args.bf16 else 'fp32'}/seed{seed}"
        if key in read():
            continue
        model = build(side, arm, seed)
        args.lr, args.seed = rate, seed
        seconds = plain.train(model, train, args, HEADS[side])
        scores = {"val": plain.mean_iou(model, val), "test": plain.mean_iou(model, test)}
        save(key, {**scores, "seconds_per_step": seconds / args.steps, "threads": args.threads})


def command_table(args: argparse.Namespace) -> None:
    """Print what has been measured as Markdown."""
    found = read()
    print("| side | arm | learning rate | seeds | mIoU, test (every 4th) | range | mIoU, val |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    grouped: dict[str, list[dict]] = {}
    for key, value in found.items():
        if "/" in key:
            grouped.setdefault(key.rsplit("/", 1)[0], []).append(value)
    for key, values in sorted(grouped.items()):
        side, arm, rate, *_ = key.split("/")
        test = [v["test"] for v in values]
        val = statistics.mean(v["val"] for v in values)
        spread = f"{min(test):.3f} to {max(test):.3f}" if len(test) > 1 else "one seed"
        row = [side, arm, rate[2:], str(len(test)), f"{statistics.mean(test):.3f}", spread, f"{val:.3f}"]
        print("| " + " | ".join(row) + " |")
    for key in ("steps", "steps-bf16"):
        if key in found:
            s = found[key]
            low, high = s["ratio_quartiles"]
            ours, theirs = s["bytes_for_backward"]["garnish"], s["bytes_for_backward"]["plain"]
            print(
                f"\n{key}: median step time ratio garnish / PEFT over {s['pairs']} alternating pairs "
                f"{s['median_ratio']:.3f} (quartiles {low:.3f} to {high:.3f}); "
                f"bytes for backward {ours / 1e6:.1f} MB against {theirs / 1e6:.1f} MB."
            )


def read() -> dict:
    """Everything measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(key: str, value: dict) -> None:
    """Add one result; the environment stands beside it."""
    found = read()
    found[key] = {**value, "torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(key, json.dumps(value), flush=True)


def main() -> None:
    parser = plain.parser()
    parser.description = __doc__
    parser.add_argument("command", choices=["steps", "quality", "table"])
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--only", choices=["lora", "references", "all"], default="all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    {"steps": command_steps, "quality": command_quality, "table": command_table}[args.command](args)


if __name__ == "__main__":
    main()
