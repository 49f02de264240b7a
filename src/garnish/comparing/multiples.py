"""Small multiples: gap recovered per task, the search over rates and the learning curves per arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from garnish.comparing.axes import Axis, line, padded, path, picture, tag, text, text_width
from garnish.comparing.figures import find, metric, rate, share

WIDTH, HEIGHT = 250.0, 150.0


def gap_panel(results: Mapping[str, Any], task: str) -> Markup | None:
    """Gap recovered of each arm in one task: a dot and its interval between frozen (0) and full fine-tuning (100 %)."""
    arms = [arm for arm in results["arms"] if find(arm, "gap", task) is not None]
    if not arms:
        return None
    arms.sort(key=lambda arm: (arm["role"] != "adapter", -(find(arm, "gap", task, "mean") or -1e9)))
    width, row = 420.0, 24.0
    left = min(max(text_width(str(arm["name"]), 12) for arm in arms) + 12, 176)
    bottom = 10 + row * len(arms)
    means = [find(arm, "gap", task, "mean") for arm in arms]
    shown = [m for m in means if m is not None and m > -0.5]
    axis = Axis(min(-0.08, *shown, 0.0) - 0.04, max(1.08, *shown, 1.0) + 0.06, left, width - 10)
    parts: list[str] = [line(axis.at(v), 4, axis.at(v), bottom, "zero" if v in (0, 1) else "grid") for v in (0, 0.5, 1)]
    parts += [
        text(axis.at(0), bottom + 16, "frozen", "middle", "tick"),
        text(axis.at(1), bottom + 16, "full", "middle", "tick"),
        text(axis.at(0.5), bottom + 16, "50 %", "middle", "tick"),
    ]
    for number, arm in enumerate(arms):
        y = 10 + row * (number + 0.5)
        gap = arm["gap"][task]
        adapter = arm["role"] == "adapter"
        name = str(arm["name"])
        parts.append(text(left - 12, y + 4, _cut(name, left - 12), "end", "name" if adapter else "name dim"))
        if gap.get("mean") is None:
            parts.append(text(axis.at(0) + 8, y + 4, f"void: {gap.get('void') or 'not measured'}", style="tick"))
            continue
        about = f"{name}: {share(gap['mean'])}"
        interval = gap.get("interval")
        if interval and None not in interval:
            about += f" ({share(interval[0])} to {share(interval[1])})"
            parts.append(line(axis.clipped(interval[0]), y, axis.clipped(interval[1]), y, "whisker"))
        if gap["mean"] < axis.low:
            parts.append(text(left + 2, y + 4, f"◂ {share(gap['mean'])}", style="tick"))
            continue
        style = "mark adapter" if adapter else f"mark {arm['role']}"
        parts.append(
            tag("circle", {"cx": axis.at(gap["mean"]), "cy": y, "r": 4.5, "class": style}, tag("title", {}, about))
        )
    return picture(width, bottom + 24, "chart gap", f"Gap recovered in {task}", *parts)


def search_panels(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One panel an arm (and task, where an arm is one model a task): held-out score over learning rate.

    Each entry: ``name``, ``task`` (or None), ``svg``, ``note`` (what is wrong with the choice, or None).
    """
    groups = _groups(results, "search")
    lows = _scales({key: [[s.get("score") for s in searched]] for key, (_, searched) in groups.items()})
    panels = []
    for (name, task), (arm, searched) in groups.items():
        chosen = _of_task(arm, task, "rate")
        scale = lows.get(task)
        if scale is None:
            svg: Markup | None = None
        else:
            svg = _search_svg(searched, chosen, scale, f"Held-out score of {name} over learning rate")
        failed = [s for s in searched if s.get("status") != "done"]
        notes = ["edge of the grid"] if _of_task(arm, task, "rate_at_edge") else []
        notes += [f"{len(failed)} of {len(searched)} rates without a score"] if failed else []
        panels.append({"name": name, "task": task, "svg": svg, "note": "; ".join(notes) or None})
    return panels


def curve_panels(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One panel an arm (and task): held-out score over steps, the chosen rate before the others, a line a seed."""
    groups = _groups(results, "runs")
    behind = _groups(results, "search")
    every = {
        key: [[p[1] for p in run.get("curve") or []] for run in [*runs, *behind.get(key, (arm, []))[1]]]
        for key, (arm, runs) in groups.items()
    }
    scales = _scales(every)
    panels = []
    for key, (arm, runs) in groups.items():
        scale = scales.get(key[1])
        if scale is None:
            continue
        chosen = _of_task(arm, key[1], "rate")
        others = [s.get("curve") or [] for s in behind.get(key, (arm, []))[1] if s.get("rate") != chosen]
        svg = _curves_svg([run.get("curve") or [] for run in runs], others, scale, f"Learning curves of {key[0]}")
        note = "budget short" if _of_task(arm, key[1], "flat") is False else None
        panels.append({"name": key[0], "task": key[1], "svg": svg, "note": note})
    return [panel for panel in panels if panel["svg"] is not None]


Groups = dict[tuple[str, str | None], tuple[Mapping[str, Any], list[Mapping[str, Any]]]]


def _groups(results: Mapping[str, Any], key: str) -> Groups:
    found: Groups = {}
    for arm in results["arms"]:
        for entry in arm.get(key) or []:
            found.setdefault((str(arm["name"]), entry.get("task")), (arm, []))[1].append(entry)
    return found


def _of_task(arm: Mapping[str, Any], task: str | None, key: str) -> Any:
    own = find(arm, "by_task", task, key) if task is not None else None
    return arm.get(key) if own is None else own


def _scales(
    series: Mapping[tuple[str, str | None], Sequence[Sequence[float | None]]],
) -> dict[str | None, tuple[float, float]]:
    """Task (None: all tasks at once) → lowest and highest score drawn, the same for all panels that share it.

    A curve that falls far below the worst arm's best is cut there: it would press all others together.
    """
    found: dict[str | None, tuple[float, float]] = {}
    for task in {key[1] for key in series}:
        panels = [[v for one in rows for v in one if v is not None] for key, rows in series.items() if key[1] == task]
        panels = [panel for panel in panels if panel]
        if not panels:
            continue
        lowest, highest = min(map(min, panels)), max(map(max, panels))
        worst_best = min(map(max, panels))
        floor = max(lowest, worst_best - 1.2 * max(highest - worst_best, 0.1 * abs(highest)))
        found[task] = padded([floor, highest])
    return found


def _frame(up: Axis, left: float, right: float) -> list[str]:
    parts: list[str] = []
    for value in up.ticks(3):
        parts.append(line(left, up.at(value), right, up.at(value), "grid"))
        parts.append(text(left - 6, up.at(value) + 4, f"{value:g}".replace("-", "−"), "end", "tick"))
    return parts


def _search_svg(
    searched: Sequence[Mapping[str, Any]], chosen: float | None, scale: tuple[float, float], label: str
) -> Markup:
    left, right, bottom = 38.0, WIDTH - 10, HEIGHT - 26
    rates = [s["rate"] for s in searched]
    across, up = Axis(*padded(rates, log=True), left, right, log=True), Axis(*scale, bottom, 10)
    parts = _frame(up, left, right)
    for value in rates:
        parts.append(text(across.at(value), bottom + 18, rate(value), "middle", "tick"))
    scored = sorted((s["rate"], s["score"]) for s in searched if s.get("score") is not None)
    if len(scored) > 1:
        parts.append(path(((across.at(r), up.clipped(v)) for r, v in scored), "curve"))
    for entry in searched:
        x, score = across.at(entry["rate"]), entry.get("score")
        if score is None:
            why = entry.get("reason") or entry.get("status") or "no score"
            parts.append(text(x, bottom - 5, "×", "middle", "cross"))
            parts.append(
                tag("circle", {"cx": x, "cy": bottom - 9, "r": 8, "class": "hover"}, tag("title", {}, str(why)))
            )
            continue
        style = "mark chosen" if entry["rate"] == chosen else "mark other"
        about = f"{rate(entry['rate'])}: {metric(score)}" + (", chosen" if entry["rate"] == chosen else "")
        inner = tag("title", {}, about)
        parts.append(tag("circle", {"cx": x, "cy": up.clipped(score), "r": 4.5, "class": style}, inner))
    return picture(WIDTH, HEIGHT, "chart panel", label, *parts)


def _curves_svg(
    curves: Sequence[Sequence[Sequence[Any]]],
    behind: Sequence[Sequence[Sequence[Any]]],
    scale: tuple[float, float],
    label: str,
) -> Markup | None:
    steps = [point[0] for curve in [*curves, *behind] for point in curve]
    if not steps:
        return None
    left, right, bottom = 38.0, WIDTH - 10, HEIGHT - 26
    across, up = Axis(min(steps), max(max(steps), min(steps) + 1), left, right), Axis(*scale, bottom, 10)
    parts = _frame(up, left, right)
    parts += [
        text(left, bottom + 18, f"{min(steps)}", "start", "tick"),
        text(right, bottom + 18, f"{max(steps)} steps", "end", "tick"),
    ]
    for group, style in ((behind, "curve behind"), (curves, "curve")):
        for curve in group:
            points = [(across.at(s), up.clipped(v)) for s, v in curve if v is not None]
            if len(points) > 1:
                parts.append(path(points, style))
    return picture(WIDTH, HEIGHT, "chart panel", label, *parts)


def _cut(name: str, width: float) -> str:
    while text_width(name, 12) > width and len(name) > 4:
        name = name[:-2].rstrip() + "…"
    return name
