"""The drawings of docs/explained.md.

    garnish demo --out demo
    python tools/explained_pictures.py --bundle demo/bundles/lora

Everything drawn is ours: a procedural scene, what the demo's bundle predicts of it, counts of
benchmarks/methods/results.json, and schemes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "images" / "explained"
PAPER, INK, QUIET = "#ffffff", "#22262b", "#6b7480"
FROZEN, TRAINED, HEAD = "#cfd9e4", "#e8833a", "#5aa469"
#: scene of the pictures: series, number, side in pixels; the demo's own scenes are of series 1 and 2
SCENE = (7, 3, 128)
TRUNK = "ViT-S/16"


def canvas(width: float, height: float, inches: float = 9.0) -> tuple[plt.Figure, Axes]:
    """Axes without a frame, in units of our own."""
    figure, axes = plt.subplots(figsize=(inches, inches * height / width), facecolor=PAPER)
    figure.subplots_adjust(0, 0, 1, 1)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_aspect("equal")
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, w: float, h: float, text: str, colour: str, size: float = 10.5) -> None:
    """A rounded box with its middle at (x, y)."""
    shape = FancyBboxPatch(
        (x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=0.12", fc=colour, ec=INK, lw=1, zorder=3
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", color=INK, size=size, zorder=4)


def arrow(axes: Axes, *points: tuple[float, float], colour: str = INK, lw: float = 1.4, head: bool = True) -> None:
    """A line along points, with a head at its end."""
    axes.plot(*zip(*points, strict=True), color=colour, lw=lw, zorder=2, solid_joinstyle="round")
    if head:
        tip = FancyArrowPatch(
            points[-2],
            points[-1],
            arrowstyle="-|>",
            mutation_scale=11,
            color=colour,
            lw=lw,
            zorder=2,
            shrinkA=0,
            shrinkB=0,
        )
        axes.add_patch(tip)


def waist(axes: Axes, x: float, y: float, w: float = 0.62, h: float = 0.62) -> None:
    """A bottleneck: wide, narrow, wide."""
    left, right, top = x - w / 2, x + w / 2, h / 2
    outline = [
        (left, y + top),
        (x, y + top / 3.5),
        (right, y + top),
        (right, y - top),
        (x, y - top / 3.5),
        (left, y - top),
    ]
    axes.add_patch(Polygon(outline, closed=True, fc=TRAINED, ec=INK, lw=1, zorder=3))


def plus(axes: Axes, x: float, y: float) -> None:
    """Where a branch is added to the stream."""
    axes.text(
        x, y, "+", ha="center", va="center", color=INK, size=13, zorder=5,
        bbox={"boxstyle": "circle,pad=0.12", "fc": PAPER, "ec": INK},
    )  # fmt: skip


def note(
    axes: Axes, x: float, y: float, text: str, *, ha: str = "center", va: str = "center", size: float = 9.5
) -> None:
    axes.text(x, y, text, ha=ha, va=va, color=INK, size=size, zorder=6, linespacing=1.25)


def draw_block() -> plt.Figure:
    """One block of a trunk, and where the methods sit."""
    figure, axes = canvas(13, 7.4)
    stream, branch = 4.2, 2.3
    # beside the trunk
    arrow(axes, (0.5, 6.75), (12.6, 6.75), colour=TRAINED, lw=2.2)
    for x in (1.25, 12.0):
        arrow(axes, (x, stream), (x, 6.68), colour=TRAINED)
    note(axes, 6.45, 7.1, "SideTuning: a small network beside the trunk, which only reads it")
    # the stream and its two branches
    arrow(axes, (0.2, stream), (12.8, stream), lw=2.6)
    for start, layer, colour in ((1.7, "attention", FROZEN), (6.6, "MLP", FROZEN)):
        end = start + 3.9
        arrow(axes, (start, stream), (start, branch), (end, branch), (end, stream - 0.2))
        box(axes, start + 0.75, branch, 0.85, 0.7, "norm", colour)
        box(axes, start + 2.1, branch, 1.35, 0.9, layer, colour)
        waist(axes, start + 3.3, branch)
        plus(axes, end, stream)
        # a thin pair below the layer
        below = branch - 1.12
        arrow(
            axes,
            (start + 1.3, branch),
            (start + 1.3, below),
            (start + 2.9, below),
            (start + 2.9, branch),
            colour=TRAINED,
            head=False,
        )
        for k, (w, h) in enumerate(((0.5, 0.16), (0.16, 0.5))):
            axes.add_patch(
                Rectangle((start + 1.72 + 0.55 * k, below - h / 2), w, h, fc=TRAINED, ec=INK, lw=1, zorder=3)
            )
    note(axes, 3.8, 0.55, "LoRA, MTLoRA: a thin pair\nbeside a layer's weights")
    note(axes, 5.75, 1.5, "Houlsby", ha="left")
    note(axes, 10.62, 1.5, "Houlsby, Pfeiffer", ha="left")
    arrow(axes, (5.72, 1.62), (5.25, 2.0), colour=QUIET, lw=0.9)
    arrow(axes, (10.58, 1.62), (10.15, 2.0), colour=QUIET, lw=0.9)
    # parallel to the MLP's branch
    arrow(axes, (6.6, stream), (6.6, 5.3), (10.5, 5.3), (10.5, stream + 0.2), colour=TRAINED)
    waist(axes, 8.55, 5.3)
    note(axes, 8.55, 5.92, "AdaptFormer, VMTAdapter, Convpass: beside a branch")
    # on the stream
    for x in (6.1, 11.3):
        waist(axes, x, stream, 0.5, 0.56)
    note(axes, 11.35, 3.75, "Mona: on the\nstream itself", va="top", ha="left")
    # tokens
    for k in range(3):
        axes.add_patch(Rectangle((0.2 + 0.32 * k, stream + 0.2), 0.26, 0.26, fc=TRAINED, ec=INK, lw=1, zorder=3))
    note(axes, 1.45, 4.75, "VPT: extra tokens\nride along", ha="left")
    arrow(axes, (1.42, 4.72), (1.12, 4.58), colour=QUIET, lw=0.9)
    # dials
    for x in (2.45, 7.35):
        axes.plot([x], [branch + 0.35], marker="o", ms=9, mfc=TRAINED, mec=INK, zorder=5)
    note(axes, 4.05, 3.35, "NormTuning, BitFit, SSF:\na dial a channel")
    arrow(axes, (2.72, 3.2), (2.55, 2.82), colour=QUIET, lw=0.9)
    key(axes, 0.35, 0.35)
    return figure


def key(axes: Axes, x: float, y: float) -> None:
    """Grey is frozen, orange is trained."""
    for k, (colour, text) in enumerate(((FROZEN, "frozen"), (TRAINED, "trained"))):
        axes.add_patch(Rectangle((x, y + 0.38 * (1 - k) - 0.13), 0.26, 0.26, fc=colour, ec=INK, lw=1))
        note(axes, x + 0.4, y + 0.38 * (1 - k), text, ha="left")


def draw_low_rank(width: int = 384, rank: int = 8) -> plt.Figure:
    """A layer's weights and LoRA's correction, to scale."""
    figure, axes = canvas(12, 4.6)
    side, thin, bottom = 3.2, 3.2 * rank / width, 0.95
    middle = bottom + side / 2

    def block(x: float, w: float, h: float, y: float, colour: str) -> None:
        axes.add_patch(Rectangle((x, y), w, h, fc=colour, ec=INK if min(w, h) > 0.2 else colour, lw=1))

    block(0.5, side, side, bottom, FROZEN)
    note(axes, 0.5 + side / 2, middle, f"W\n{width} × {width}\n{width * width:,} numbers\nfrozen", size=11)
    note(axes, 4.15, middle, "+", size=20)
    block(4.75, thin, side, bottom, TRAINED)
    note(axes, 4.78, bottom - 0.35, f"B\n{width} × {rank}", size=10)
    note(axes, 5.3, middle, "·", size=24)
    block(5.65, side, thin, middle - thin / 2, TRAINED)
    note(axes, 5.65 + side / 2, middle - 0.5, f"A\n{rank} × {width}", size=10)
    note(axes, 9.15, middle, "=", size=20)
    pair = 2 * width * rank
    share = 100 * pair / width**2
    note(
        axes, 9.55, middle,
        f"W and its correction:\n{pair:,} numbers\nare trained, {share:.1f} %.\n"
        "Folded into W, they\ncost nothing more.",
        ha="left", size=11,
    )  # fmt: skip
    note(axes, 8.2, 4.2, f"One layer of a ViT-S, LoRA of rank {rank}, drawn to scale", size=11)
    return figure


def draw_many_tasks(bundle: Path, scene: np.ndarray) -> plt.Figure:
    """One pass, several tasks, with what the bundle really predicts."""
    import torch

    import garnish as gn

    found = gn.load(bundle).predict(torch.from_numpy(scene).permute(2, 0, 1))
    painted = found.painted()
    figure, axes = canvas(13, 6.6)

    def show(image: np.ndarray, x: float, y: float, side: float) -> None:
        axes.imshow(
            image, extent=(x - side / 2, x + side / 2, y - side / 2, y + side / 2), interpolation="nearest", zorder=3
        )
        axes.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fill=False, ec=INK, lw=1, zorder=4))

    middle, stages = 3.3, (3.6, 4.9, 6.2, 7.5)
    show(scene, 1.3, middle, 2.0)
    note(axes, 1.3, 1.95, "one picture")
    arrow(axes, (2.35, middle), (9.0, middle), lw=2.4, head=False)
    for k, x in enumerate(stages):
        box(axes, x, middle, 0.95, 2.3 - 0.3 * k, "", FROZEN)
        waist(axes, x, middle, 0.5, 0.5)
    note(axes, 5.55, 5.0, "the frozen trunk, run once,\nwith small trained parts inside", size=11)
    heights = (5.75, 4.13, 2.5, 0.87)
    for (name, image), y in zip(painted.items(), heights, strict=True):
        arrow(axes, (9.0, middle), (9.0, y), (9.35, y))
        box(axes, 9.95, y, 1.15, 0.7, "head", HEAD)
        arrow(axes, (10.53, y), (11.0, y))
        show(image, 11.8, y, 1.5)
        note(axes, 9.95, y - 0.58, {"seg": "segmentation"}.get(name, name))
    axes.set(xlim=(0, 13), ylim=(0, 6.6))
    axes.add_patch(Rectangle((0.4, 0.55), 0.26, 0.26, fc=FROZEN, ec=INK, lw=1))
    note(axes, 0.8, 0.68, "frozen", ha="left")
    axes.add_patch(Rectangle((1.9, 0.55), 0.26, 0.26, fc=TRAINED, ec=INK, lw=1))
    note(axes, 2.3, 0.68, "trained", ha="left")
    axes.add_patch(Rectangle((3.5, 0.55), 0.26, 0.26, fc=HEAD, ec=INK, lw=1))
    note(axes, 3.9, 0.68, "trained, a task's own", ha="left")
    return figure


def draw_costs() -> plt.Figure:
    """What each method trains, and what a training step keeps in memory, as measured."""
    trunk = json.loads((ROOT / "benchmarks" / "methods" / "results.json").read_text("utf-8"))["trunks"][TRUNK]
    rows = sorted(trunk["methods"].items(), key=lambda item: -item[1]["bytes_for_backward"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 5.4), sharey=True, layout="constrained", facecolor=PAPER)
    places, names = range(len(rows)), [name for name, _ in rows]
    special = {"Frozen": QUIET, "FullFineTuning": QUIET}
    colours = [special.get(name, TRAINED) for name in names]
    trained = [row["trained"] for _, row in rows]
    left.barh(places, [max(t, 1) for t in trained], color=colours)
    left.set_xscale("log")
    left.set_xlim(5e3, 3e8)
    for k, count in enumerate(trained):
        said = f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count else "0"
        left.text(max(count, 5e3) * 1.15, k, said, va="center", size=8.5, color=INK)
    left.set_yticks(places, names)
    left.set_title("numbers trained in the trunk", size=10.5, color=INK)
    memory = [row["bytes_for_backward"] / 1e6 for _, row in rows]
    right.barh(places, memory, color=colours)
    right.set_xlim(0, 390)
    for k, mega in enumerate(memory):
        right.text(mega + 5, k, f"{mega:.0f}", va="center", size=8.5, color=INK)
    right.set_title("MB a training step remembers", size=10.5, color=INK)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    return figure


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the demo's bundle; left out: only what needs none is drawn")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    figures = {"block": draw_block(), "low_rank": draw_low_rank(), "costs": draw_costs()}
    if given.bundle:
        from garnish.data.scenes.render import render

        seed, index, size = SCENE
        figures["many_tasks"] = draw_many_tasks(given.bundle, render(seed, index, size).image)
    for name, figure in figures.items():
        figure.savefig(OUT / f"{name}.png", dpi=120, metadata={"Software": None})
        print(OUT / f"{name}.png")


if __name__ == "__main__":
    main()
