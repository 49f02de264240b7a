"""``garnish demo``: one bundled backbone, four tasks at once, three ways to adapt it, offline and in minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from rich import box
from rich.table import Table

from garnish.backbones.build import backbone
from garnish.checking.arguments import checked
from garnish.checking.bounds import MOST_SEED, Count
from garnish.checking.plain_data import integers
from garnish.data.augment import Augment
from garnish.data.scenes.render import CLASSES
from garnish.data.scenes.scenes import Scenes
from garnish.data.sources import NumScenes
from garnish.drawing.sheet import draw_sheet
from garnish.engine.adapter import Method
from garnish.errors import plural
from garnish.model.model import Model, adapt
from garnish.output import console
from garnish.registry import build
from garnish.tasks.metrics.delta_m import delta_m
from garnish.tasks.task import Task
from garnish.training.evaluate import evaluate
from garnish.training.fit import fit

#: Style of the scenes; the bundled backbone was trained on the other one (other shapes, textures, palette, light).
STYLE = "demo"
TASKS = ("seg", "depth", "normals", "edges")
SIZE = 96
#: arm → method, its options, learning rate in the backbone (the best of four on other scenes: see
#: benchmarks/demo_rates.py)
ARMS: dict[str, tuple[str, dict[str, object], float]] = {
    "heads only": ("Frozen", {}, 1e-3),
    "LoRA, rank 8": ("LoRA", {"rank": 8}, 1e-2),
    "full fine-tuning": ("FullFineTuning", {}, 3e-3),
}
REFERENCE = "full fine-tuning"
HEAD_RATE = 3e-3
#: weights of the two classes of the room and of each class of solids: solids are a seventh of the pixels
CLASS_WEIGHTS = (0.3, 2.0)


@dataclass(frozen=True)
class DemoRow:
    """Metrics and costs of one arm."""

    headline: dict[str, float]
    delta: float
    encoder: int
    heads: int
    bytes_saved: int
    seconds_per_step: float


@checked
def run_demo(
    out: str | Path = "demo",
    *,
    steps: Count = 120,
    num_train: NumScenes = 256,
    num_val: NumScenes = 64,
    seed: Annotated[int, integers(0, MOST_SEED // 2 - 1)] = 0,
) -> dict[str, DemoRow]:
    """Train the three arms, print one table, write ``sheet.png``, ``balance.png`` and a bundle per arm under ``out``.

    Args:
        out: folder for pictures and bundles.
        steps: training steps of every arm, 16 pictures each.
        num_train: scenes to train on.
        num_val: scenes to measure on.
        seed: of scenes, sample order and initial weights.

    Returns:
        Arm → its metrics and costs.
    """
    out = Path(out)
    told = console()
    told.print(f"drawing {num_train + num_val} scenes of {SIZE}x{SIZE} …")
    train = Scenes(num_train, size=SIZE, seed=2 * seed + 1, style=STYLE, tasks=TASKS, keep=True)
    val = Scenes(num_val, size=SIZE, seed=2 * seed + 2, style=STYLE, tasks=TASKS, keep=True)
    room, solid = CLASS_WEIGHTS
    weights = [room] * 2 + [solid] * (len(CLASSES[STYLE]) - 2)
    seg = build("tasks", "Semantic", {"classes": list(CLASSES[STYLE]), "class_weights": weights})
    tasks: dict[str, Task] = {**train.tasks, "seg": seg}
    models: dict[str, Model] = {}
    measured: dict[str, dict[str, float]] = {}
    spent: dict[str, float] = {}
    for arm, (name, options, rate) in ARMS.items():
        torch.manual_seed(seed)
        method: Method = build("adapters", name, options)
        head = build("heads", "SegFormerHead", {"channels": 32})
        model = adapt(backbone("garnish_b0"), method, tasks, head)
        told.print(f"{arm}: {plural(steps, 'step')} …")
        start = time.perf_counter()
        fit(
            model, train, steps=steps, batch_size=16, lr=rate, head_lr=HEAD_RATE, seed=seed,
            augment=Augment(scale=(1.0, 1.3), flip=0.5), progress=False, log=(),
        )  # fmt: skip
        spent[arm] = (time.perf_counter() - start) / steps
        found = evaluate(model, val, batch_size=16)
        measured[arm] = {task: found[task][model.tasks[task].headline] for task in TASKS}
        model.save(out / "bundles" / name.lower(), metrics=found)
        models[arm] = model
    rows = {arm: _row(models[arm], measured, arm, out, spent[arm]) for arm in ARMS}
    told.print(_table(rows))
    told.print(
        "Δm: mean relative change over the four tasks against this run's own multi-task full fine-tuning with the same "
        f"{steps} steps, seed {seed} (not against single-task models). The backbone never saw scenes of this style."
    )
    sheet = _sheet(models["LoRA, rank 8"], val, range(3), out / "sheet.png")
    plot = _plot(rows, out / "balance.png")
    told.print(f"wrote {sheet}, {plot} and a bundle per arm under {out / 'bundles'}")
    return rows


def _row(model: Model, measured: dict[str, dict[str, float]], arm: str, out: Path, seconds: float) -> DemoRow:
    facts = model.report((SIZE, SIZE))
    better = {task: model.tasks[task].higher_is_better for task in TASKS}
    bundle = out / "bundles" / ARMS[arm][0].lower()
    return DemoRow(
        headline=measured[arm],
        delta=delta_m(measured[arm], measured[REFERENCE], better),
        encoder=facts["encoder_trainable"],
        heads=facts["decoder_trainable"],
        bytes_saved=sum(f.stat().st_size for f in bundle.iterdir()),
        seconds_per_step=seconds,
    )


#: task → name of its headline metric and how it is written
_HEADLINES = {
    "seg": ("segmentation, mean IoU ↑", "{:.3f}"),
    "depth": ("depth, RMSE in metres ↓", "{:.3f}"),
    "normals": ("normals, mean angle in ° ↓", "{:.1f}"),
    "edges": ("edges, F at 2 px ↑", "{:.3f}"),
}


def _table(rows: dict[str, DemoRow]) -> Table:
    """One column per arm, within 80 characters."""
    table = Table(title="one backbone, four tasks, one pass", box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for arm in rows:
        table.add_column(arm, justify="right", no_wrap=True)
    for task, (title, form) in _HEADLINES.items():
        table.add_row(title, *(form.format(row.headline[task]) for row in rows.values()))
    table.add_row("Δm in %", *(f"{row.delta:+.1f}" for row in rows.values()), end_section=True)
    table.add_row("trained in the encoder", *(_short(row.encoder) for row in rows.values()))
    table.add_row("trained in the heads", *(_short(row.heads) for row in rows.values()))
    table.add_row("bundle on disk", *(f"{row.bytes_saved / 1e3:,.0f} kB" for row in rows.values()))
    table.add_row("training step", *(f"{row.seconds_per_step:.2f} s" for row in rows.values()))
    return table


def _short(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _sheet(model: Model, val: Scenes, indices: Sequence[int], path: Path) -> Path:
    """One row per picture: the picture, targets and predictions of all tasks."""
    model.eval()
    rows = []
    for index in indices:
        sample = val[index]
        with torch.inference_mode():
            raw = model(sample.image[None])
        cells = [("picture", np.asarray(sample.image.permute(1, 2, 0)))]
        for name, task in model.tasks.items():
            cells.append((f"{name}, target", task.paint(sample.targets[name])))
            cells.append((f"{name}, predicted", task.paint(task.decode(raw[name])[0])))
        rows.append(cells)
    return draw_sheet(rows, path, legend=dict(model.tasks["seg"].legend()), cell_px=192)


def _plot(rows: dict[str, DemoRow], path: Path) -> Path:
    """Δm over trained parameters of encoder and heads together."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for arm, row in rows.items():
        trained = row.encoder + row.heads
        axes.scatter(trained, row.delta, s=70, zorder=3)
        axes.annotate(arm, (trained, row.delta), xytext=(0, 9), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.margins(x=0.3, y=0.25)
    axes.axhline(0, linewidth=1, color="grey", zorder=1)
    axes.grid(alpha=0.25)
    axes.set_xlabel("trained parameters, encoder and heads")
    axes.set_ylabel("Δm against multi-task full fine-tuning, %")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
