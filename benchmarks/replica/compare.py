"""Replica office 0: four tasks from one adapted pass beside four single-task full fine-tunings of the same steps.

    python benchmarks/replica/compare.py --steps 150
    python benchmarks/replica/compare.py --steps 100 --rates 1e-5 5e-5 --more

``--more`` adds smaller adapters with a decoder whose base all tasks share, beside LoRA of rank 8 with separate heads.

One room: val and test are new viewpoints of a seen room, so this shows that four tasks learn together and nothing
about other rooms. The encoder was pretrained for depth (Depth Anything V2), which flatters depth and normals on every
row. Full fine-tuning takes the best of the given learning rates by the validation pictures, task by task.

Results are kept in benchmarks/replica/results.json; a run that is in it is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import garnish as gn
from garnish.data.augment import Augment
from garnish.heads.head import Head
from garnish.tasks.metrics.delta_m import delta_m

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT.parent / "shared" / "weights" / "depth_anything_v2_vits_encoder" / "model.safetensors"
RESULTS = Path(__file__).with_name("results.json")
TASKS = ("seg", "depth", "normals", "edges")
SIZE = (196, 336)
#: of the full fine-tunings that all are compared with; with another seed only runs of several tasks are repeated
REFERENCE_SEED = 0


#: more arms: adapters, decoder, its rate
MORE = {
    "LoRA r = 4, shared base": (gn.LoRA(rank=4), gn.SharedBaseHead(), 1e-3),
    "LoRA r = 4, α = 8, shared base at 2e-3": (gn.LoRA(rank=4, alpha=8), gn.SharedBaseHead(), 2e-3),
    "LoRA r = 8, linear heads at 2e-3": (gn.LoRA(rank=8), gn.LinearHead(), 2e-3),
    "LoRA r = 8, SegFormer heads": (gn.LoRA(rank=8), gn.SegFormerHead(channels=256), 1e-3),
}


def run(
    method: gn.Method,
    tasks: tuple[str, ...],
    args: argparse.Namespace,
    lr: float,
    head: Head | None = None,
    head_lr: float = 1e-3,
) -> dict:
    """Train one model and measure it on val and test at the pictures' own size."""
    torch.manual_seed(args.seed)
    sets = {s: gn.folder(ROOT / "recipes" / "data" / "replica.yaml", s, tasks=tasks) for s in ("train", "val", "test")}
    trunk = gn.backbone("vit_small_patch14_dinov2", str(WEIGHTS))
    model = gn.adapt(trunk, method, dict(sets["train"].tasks), head)
    done = gn.fit(
        model, sets["train"], steps=args.steps, batch_size=4, lr=lr, head_lr=head_lr, seed=args.seed, log=(),
        augment=Augment(size=SIZE, scale=(1.0, 1.2)), progress=False,
    )  # fmt: skip
    found = {s: gn.evaluate(model, sets[s], size=SIZE if s == "val" else None) for s in ("val", "test")}
    found["test at the training size"] = gn.evaluate(model, sets["test"], size=SIZE)
    facts = model.report(SIZE)
    return {
        **{s: {t: m[model.tasks[t].headline] for t, m in found[s].items()} for s in found},
        "encoder_trainable": facts["encoder_trainable"],
        "decoder_trainable": facts["decoder_trainable"],
        "bundle_bytes": facts["bundle_bytes"],
        "seconds": done.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-5, 1e-4], help="of full fine-tuning")
    parser.add_argument("--more", nargs="*", choices=list(MORE), default=None, help="these arms too; named none: all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.more = list(MORE) if args.more == [] else args.more or []
    plan = [
        ("LoRA, four tasks", gn.LoRA(rank=8), TASKS, 1e-3, None, 1e-3),
        ("heads only, four tasks", gn.Frozen(), TASKS, 1e-3, None, 1e-3),
    ]
    plan += [(f"full, {t}, {r:g}", gn.FullFineTuning(), (t,), r, None, 1e-3) for t in TASKS for r in args.rates]
    if args.seed != REFERENCE_SEED:
        plan = plan[:1]
    plan += [(name, MORE[name][0], TASKS, 1e-3, *MORE[name][1:]) for name in args.more]
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, method, tasks, rate, head, head_rate in plan:
        key = f"{name} / {args.steps} steps, seed {args.seed}"
        if key not in found:
            found[key] = run(method, tasks, args, rate, head, head_rate)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(key, json.dumps(found[key]), flush=True)
    table(found, args)


def table(found: dict, args: argparse.Namespace) -> None:
    """Print the comparison as Markdown."""
    tail = f" / {args.steps} steps, seed {args.seed}"
    better = {"seg": True, "depth": False, "normals": False, "edges": True}
    single: dict[str, float] = {}
    for task in TASKS:
        runs = [found[f"full, {task}, {r:g} / {args.steps} steps, seed {REFERENCE_SEED}"] for r in args.rates]
        pick = (max if better[task] else min)(runs, key=lambda run: run["val"][task])
        single[task] = pick["test"][task]
    measured = "seg mIoU ↑ | depth RMSE, m ↓ | normals mean angle, ° ↓ | edges F at 2 px ↑"
    print(f"\n| trained | {measured} | Δm % | encoder | heads | bundle |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(
        "| four single-task full fine-tunings |",
        " | ".join(f"{single[t]:.3f}" for t in TASKS),
        "| 0 | 4 x 21.8 M | | |",
    )
    for name in ("LoRA, four tasks", "heads only, four tasks", *args.more):
        if name + tail not in found:
            continue
        row = found[name + tail]
        values = " | ".join(f"{row['test'][t]:.3f}" for t in TASKS)
        delta = delta_m(row["test"], single, better)
        sizes = f"{row['encoder_trainable'] / 1e6:.2f} M | {row['decoder_trainable'] / 1e6:.2f} M"
        print(f"| {name}, one pass | {values} | {delta:+.1f} | {sizes} | {row['bundle_bytes'] / 1e6:.2f} MB |")


if __name__ == "__main__":
    main()
