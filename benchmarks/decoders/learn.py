"""Do they learn? SegFormer heads, DeMT and the shared base on Replica's four tasks, adapted and fully tuned.

    python benchmarks/decoders/learn.py --steps 40
    python benchmarks/decoders/learn.py --table

One room, small pictures and few steps: this shows that each decoder learns all four tasks above a frozen, adapted trunk
and above one that is tuned whole, and nothing about which is better. Each run is measured on val before its first step
and after its last. Results are kept in learn.json beside this file; a run that is in it is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import garnish as gn
from garnish.data.augment import Augment

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT.parent / "shared" / "weights" / "depth_anything_v2_vits_encoder" / "model.safetensors"
RESULTS = Path(__file__).with_name("learn.json")
TASKS = ("seg", "depth", "normals", "edges")
SIZE = (112, 196)
HEADS = {
    "SegFormer heads": lambda: gn.SegFormerHead(channels=64),
    "DeMT": lambda: gn.DeMT(channels=64),
    "shared base": lambda: gn.SharedBaseHead(),
    "shared base, no direct part": lambda: gn.SharedBaseHead(direct=False),
}
TRUNKS = {
    "frozen, LoRA": (lambda: gn.LoRA(rank=8), 1e-3),
    "tuned whole": (lambda: gn.FullFineTuning(), 3e-5),
}


def run(head: str, trunk: str, args: argparse.Namespace) -> dict:
    """Train one model; its headline metrics on val before and after."""
    torch.manual_seed(args.seed)
    sets = {s: gn.folder(ROOT / "recipes" / "data" / "replica.yaml", s, tasks=TASKS) for s in ("train", "val")}
    method, lr = TRUNKS[trunk]
    backbone = gn.backbone("vit_small_patch14_dinov2", str(WEIGHTS))
    model = gn.adapt(backbone, method(), dict(sets["train"].tasks), HEADS[head]())

    def measured() -> dict[str, float]:
        found = gn.evaluate(model, sets["val"], size=SIZE)
        return {task: found[task][model.tasks[task].headline] for task in TASKS}

    before = measured()
    done = gn.fit(
        model, sets["train"], steps=args.steps, batch_size=4, lr=lr, head_lr=1e-3, seed=args.seed, log=(),
        augment=Augment(size=SIZE, scale=(1.0, 1.0)), progress=False,
    )  # fmt: skip
    facts = model.report(SIZE)
    return {
        "before": before,
        "after": measured(),
        "seconds": done.seconds,
        "decoder_trainable": facts["decoder_trainable"],
        "encoder_trainable": facts["encoder_trainable"],
    }


def table(found: dict) -> None:
    """Print what was measured as Markdown: before → after."""
    print("| decoder | trunk | seg mIoU ↑ | depth RMSE, m ↓ | normals mean angle, ° ↓ | edges F at 2 px ↑ | decoder |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key, row in found.items():
        head, trunk, _ = key.split(" / ")
        values = " | ".join(f"{row['before'][t]:.3f} → {row['after'][t]:.3f}" for t in TASKS)
        print(f"| {head} | {trunk} | {values} | {row['decoder_trainable'] / 1e6:.2f} M |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--heads", choices=list(HEADS), nargs="+", default=list(HEADS))
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for head in () if args.table else args.heads:
        for trunk in TRUNKS:
            key = f"{head} / {trunk} / {args.steps} steps, seed {args.seed}"
            if key not in found:
                found[key] = run(head, trunk, args)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
                print(key, json.dumps(found[key]), flush=True)
    table(found)


if __name__ == "__main__":
    main()
