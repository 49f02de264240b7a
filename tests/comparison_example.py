"""A made-up results.json of `garnish compare`, with every kind of arm that a report has to show."""

from __future__ import annotations

import math
import random

TASKS = {
    "seg": {"task": "Semantic", "headline": "miou", "higher_is_better": True, "unit": "", "classes": None},
    "depth": {"task": "Depth", "headline": "rmse", "higher_is_better": False, "unit": "m", "classes": None},
    "normals": {"task": "Normals", "headline": "mean", "higher_is_better": False, "unit": "°", "classes": None},
    "edges": {"task": "Edges", "headline": "odsf", "higher_is_better": True, "unit": "", "classes": None},
}
CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"]
FULL = {"seg": 0.688, "depth": 0.612, "normals": 19.4, "edges": 0.741}
TRUNK = 5_717_416
ADAPTER_RATES, REFERENCE_RATES = [3e-4, 1e-3, 3e-3, 1e-2], [1e-5, 3e-5, 1e-4, 3e-4]
#: name, role, method, options, encoder parameters, Δm in %, bytes for backward, step seconds
ARMS = [
    ("LoRA r=4", "adapter", "LoRA", {"rank": 4}, 147_456, -2.1, 61e6, 0.31),
    ("LoRA r=16", "adapter", "LoRA", {"rank": 16, "sites": "qkv"}, 589_824, -1.0, 68e6, 0.33),
    ("AdaptFormer", "adapter", "AdaptFormer", {"width": 64}, 299_568, -1.6, 72e6, 0.34),
    ("Houlsby", "adapter", "Houlsby", {"width": 32}, 310_656, -2.7, 81e6, 0.39),
    ("VMTAdapter", "adapter", "VMTAdapter", {}, 221_184, -2.4, 77e6, 0.41),
    ("MTLoRA", "adapter", "MTLoRA", {"rank": 16}, 1_327_104, 0.6, 143e6, 0.58),
    ("BitFit", "adapter", "BitFit", {}, 38_784, -6.4, 52e6, 0.29),
    ("SSF", "adapter", "SSF", {}, 52_992, -5.2, 88e6, 0.36),
    ("SideTuning", "adapter", "SideTuning", {}, 120_000, -8.9, 4e6, 0.12),
    ("VPT deep", "adapter", "VPT", {"tokens": 10}, 92_160, -9.9, 95e6, 0.47),
    ("Mona", "adapter", "Mona", {}, 410_000, None, 98e6, None),
    ("Convpass", "adapter", "Convpass", {}, 332_000, None, None, None),
    ("frozen", "frozen", "Frozen", {}, 0, -17.8, 2e6, 0.11),
    ("full, one model a task", "single", "FullFineTuning", {}, 4 * TRUNK, 0.0, 118e6, 1.9),
    ("full, all tasks", "multi", "FullFineTuning", {}, TRUNK, -0.7, 118e6, 0.52),
    ("from scratch", "scratch", "FullFineTuning", {}, TRUNK, -49.0, 118e6, 0.52),
    ("extras alone", "control", "Extras", {}, 9_600, -15.2, 40e6, 0.24),
    ("LoRA r=16, random trunk", "control", "LoRA", {"rank": 16}, 589_824, -63.0, 68e6, 0.33),
]


def example(tasks=("seg", "depth", "normals", "edges"), arms=None, seeds=(0, 1, 2), seed=7):
    """Contents of a results.json: all tasks or some, all arms or those named."""
    draw = random.Random(seed)
    described = {name: dict(TASKS[name], classes=CLASSES if name == "seg" else None) for name in tasks}
    rows = [_arm(draw, described, seeds, *row) for row in ARMS if arms is None or row[0] in arms]
    if len(tasks) == 1:
        rows = [row for row in rows if row["role"] != "multi"]
    done = [r for r in rows if r["delta_m"]]
    for row in done:
        row["dominated"] = any(
            o is not row
            and o["delta_m"]["mean"] >= row["delta_m"]["mean"]
            and o["encoder_trainable"] <= row["encoder_trainable"]
            for o in done
        )
    return {
        "format": 1,
        "title": "CamVid, five methods and their references",
        "status": "done" if all(row["status"] != "unfinished" for row in rows) else "unfinished",
        "command": "garnish compare --config recipes/camvid.yaml --adapters LoRA,AdaptFormer --seeds 3 --out report",
        "created": "2026-03-14T15:09:26+00:00",
        "wall_seconds": 15_734.2,
        "environment": {
            "python": "3.12.3",
            "torch": "2.11.0",
            "timm": "1.0.31",
            "garnish": "0.1.0",
            "platform": "Linux 6.8 x86_64",
            "processor": "AMD EPYC 7B13, 2 cores",
            "threads": 2,
            "device": "cpu",
        },
        "licences": {
            "backbone": {
                "name": "vit_small_patch14_dinov2",
                "licence": "Apache-2.0",
                "non_commercial": False,
                "weights": "timm/vit_small_patch14_dinov2.lvd142m",
            },
            "data": "CamVid: research and teaching only",
        },
        "protocol": {
            "steps": 1200,
            "batch_size": 8,
            "seeds": list(seeds),
            "rates": ADAPTER_RATES,
            "reference_rates": REFERENCE_RATES,
            "widen": 0,
            "head_rate": 1e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "precision": "32-true",
            "held_out": "every 5th picture of train",
            "train_pictures": 294,
            "held_out_pictures": 73,
            "test_pictures": 233,
            "eval_size": [360, 480],
            "head": {"name": "SegFormerHead", "channels": 64},
            "augment": {"flip": True, "scale": [0.5, 2.0], "crop": [224, 224]},
            "variants": 4,
            "resamples": 1000,
        },
        "tasks": described,
        "arms": rows,
        "sheets": [],
        "notes": [
            "Pictures are left out: the data's licence asks for it.",
            "Bytes for backward of the arm Convpass were not measured: it did not finish.",
        ],
    }


def _spread(draw, value, width, seeds):
    values = [value + draw.gauss(0, width) for _ in seeds]
    return {"mean": sum(values) / len(values), "least": min(values), "most": max(values), "values": values}


def _arm(draw, tasks, seeds, name, role, method, options, encoder, delta, backward, step):
    random_trunk = role == "scratch" or "random" in name
    rates = REFERENCE_RATES if role in ("single", "multi", "scratch") else ADAPTER_RATES
    status, reason = "done", None
    if name == "Mona":
        status, reason = "failed", "diverged: the loss was not finite at step 40 with every rate of the grid"
    if name == "Convpass":
        status, reason = "unfinished", "stopped after 2 of 6 runs"
    finished = status == "done"
    metrics, gap, difference, per_class = {}, {}, {}, {}
    for number, (task, about) in enumerate(tasks.items()):
        if not finished:
            continue
        sign = 1 if about["higher_is_better"] else -1
        full, frozen = FULL[task], FULL[task] * (1 - sign * 0.178)
        if task == "edges":
            frozen = full + 0.004  # full fine-tuning gains nothing: the gap is void
        value = full * (1 + sign * (delta + 0.8 * math.sin(3 * number + delta) * (role != "single")) / 100)
        metrics[task] = {about["headline"]: _spread(draw, value, full * 0.004, seeds)}
        if task == "seg":
            metrics[task]["pixel_accuracy"] = _spread(draw, 0.6 + value * 0.4, 0.002, seeds)
        if about["classes"]:
            per_class[task] = {
                c: _spread(draw, max(0.0, value * (1.3 - 0.07 * i)), 0.01, seeds) for i, c in enumerate(CLASSES)
            }
            for entry in per_class[task].values():
                del entry["values"]
        mean = metrics[task][about["headline"]]["mean"]
        if role != "single":
            difference[task] = {"mean": mean - full, "interval": [mean - full * 1.012, mean - full * 0.988]}
        if role not in ("frozen", "single"):
            if task == "edges":
                gap[task] = {"mean": None, "values": [], "interval": None, "void": "full is no better than frozen"}
            else:
                part = (mean - frozen) / (full - frozen)
                gap[task] = {"mean": part, "values": [part] * 3, "interval": [part - 0.07, part + 0.06], "void": None}
    delta_m = None
    if finished:
        delta_m = _spread(draw, delta, 0.35 * (role != "single"), seeds)
        delta_m["interval"] = [delta_m["mean"] - 1.1, delta_m["mean"] + 1.0]
    best = len(rates) - 1 if name in ("VPT deep", "BitFit") else 1
    level = 0.68 + (delta or -5) / 100
    owners = list(tasks) if role == "single" else [None]
    steps = range(0, 1201, 100)

    def curve(top):
        return [[s, max(0.02, top * (1 - math.exp(-s / 180)) + draw.gauss(0, 0.006))] for s in steps]

    search = []
    for task in owners:
        for i, rate in enumerate(rates):
            score = level - 0.05 * abs(i - best) ** 1.5 + draw.gauss(0, 0.003)
            broken = status == "failed" or (name == "LoRA r=16" and i == 3)
            search.append(
                {
                    "task": task,
                    "rate": rate,
                    "score": None if broken else score,
                    "status": "failed" if broken else "done",
                    "reason": "the loss was not finite at step 40" if broken else None,
                    "curve": curve(score)[: 2 if broken else None],
                }
            )
    runs = [
        {
            "seed": s,
            "task": task,
            "status": "done",
            "reason": None,
            "best_step": 1100,
            "seconds": 402.5,
            "curve": curve(level + draw.gauss(0, 0.004)),
        }
        for task in owners
        for s in seeds
        if finished
    ]
    arm = {
        "name": name,
        "role": role,
        "status": status,
        "reason": reason,
        "methods": [{"name": method, "options": options}],
        "trunk": "random" if random_trunk else "pretrained",
        "cached": role == "frozen" or method == "SideTuning",
        "rate": rates[best] if finished else None,
        "rate_at_edge": finished and best in (0, len(rates) - 1),
        "flat": None if not finished else name not in ("SideTuning", "from scratch"),
        "search": search,
        "runs": runs,
        "metrics": metrics,
        "per_class": per_class,
        "delta_m": delta_m,
        "gap": gap,
        "difference": difference,
        "encoder_total": TRUNK + (encoder if role == "adapter" else 0),
        "encoder_trainable": encoder,
        "decoder_trainable": 612_844,
        "bundle_bytes": 2 * (encoder + 612_844) + 4096,
        "macs": 5_210_000_000 + 4 * encoder,
        "bytes_for_backward": None if backward is None else int(backward),
        "step_seconds": step,
        "step_ratio": None if step is None else step / 0.11,
        "wall_seconds": None if step is None else step * 1200,
        "dominated": False,
    }
    if role == "single":
        arm["by_task"] = {t: {"rate": rates[best], "rate_at_edge": False, "flat": True} for t in tasks}
    return arm
