"""Small multiples of the report: gap recovered per task, search over rates and learning curves per arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar, final

from markupsafe import Markup

from garnish.comparing.report.results import ArmResult, Choice, Curve, Results, SearchRun, SeedRun
from garnish.reporting.number_format import metric_text, percent_text, rate_text
from garnish.reporting.svg import Axis, inside_axes, line, padded, path, picture, tag, text, text_width, value_lines

WIDTH, HEIGHT = 250.0, 150.0
#: Font size of tick labels in pixels.
TICK = 11.5
T = TypeVar("T", SearchRun, SeedRun)


@final
@dataclass(frozen=True)
class Panel:
    """The plot of an arm, or of its model of one task; ``svg`` None: no rate has a score; ``note``: caveats."""

    name: str
    task: str | None
    svg: Markup | None
    note: str | None


def gap_panel(results: Results, task: str) -> Markup | None:
    """Plot of the gap recovered in one task: per arm a dot with interval from frozen (0) to full tuning (100 %)."""
    arms = [(arm, arm.gap[task]) for arm in results.arms if task in arm.gap]
    if not arms:
        return None
    arms.sort(key=lambda pair: (pair[0].role != "adapter", -(pair[1].mean or -1e9)))
    width, row = 420.0, 24.0
    left = min(max(text_width(arm.name, 12) for arm, _ in arms) + 14, 190)
    bottom = 10 + row * len(arms)
    shown = [gap.mean for _, gap in arms if gap.mean is not None and gap.mean > -0.5]
    axis = Axis(min(-0.08, *shown, 0.0) - 0.04, max(1.08, *shown, 1.0) + 0.06, left, width - 10)
    parts: list[str] = [line(axis.at(v), 4, axis.at(v), bottom, "zero" if v in (0, 1) else "grid") for v in (0, 0.5, 1)]
    parts += [
        text(axis.at(0), bottom + 16, "frozen", "middle", "tick"),
        text(axis.at(1), bottom + 16, "full", "middle", "tick"),
        text(axis.at(0.5), bottom + 16, "50 %", "middle", "tick"),
    ]
    for number, (arm, gap) in enumerate(arms):
        y = 10 + row * (number + 0.5)
        adapter, name = arm.role == "adapter", arm.name
        parts.append(text(left - 12, y + 4, _cut(name, left - 12), "end", "name" if adapter else "name dim"))
        if gap.mean is None:
            parts.append(text(axis.at(0) + 8, y + 4, f"void: {gap.void or 'not measured'}", style="tick"))
            continue
        about = f"{name}: {percent_text(gap.mean)} %"
        interval = gap.interval
        if interval is not None:
            about += f" ({percent_text(interval[0])} to {percent_text(interval[1])} %)"
        if interval is not None and interval[1] > axis.low:
            parts.append(line(axis.clipped(interval[0]), y, axis.clipped(interval[1]), y, "whisker"))
        if gap.mean < axis.low:
            parts.append(text(left + 2, y + 4, f"◂ {percent_text(gap.mean)} %", style="tick"))
            continue
        style = "mark adapter" if adapter else f"mark {arm.role}"
        parts.append(
            tag("circle", {"cx": axis.at(gap.mean), "cy": y, "r": 4.5, "class": style}, tag("title", {}, about))
        )
    return picture(width, bottom + 24, "chart gap", f"Gap recovered in {task}", *parts)


def void_everywhere(results: Results, task: str) -> str | None:
    """The reason, if the gap of a task is void for every arm for the same reason; else None."""
    gaps = [arm.gap[task] for arm in results.arms if task in arm.gap]
    reasons = {gap.void for gap in gaps if gap.mean is None and gap.void}
    return reasons.pop() if len(reasons) == 1 and all(gap.mean is None for gap in gaps) else None


def search_panels(results: Results) -> list[Panel]:
    """One panel per arm (and task, if an arm has one model per task): held-out score over learning rate."""
    groups = _groups((arm, arm.search) for arm in results.arms)
    scores = {key: [s.score for s in found if s.score is not None] for key, (_, found) in groups.items()}
    scales = _scales(scores, 0.15)
    panels = []
    for (name, task), (arm, searched) in groups.items():
        failed = sum(s.score is None for s in searched)
        notes = ["edge of the grid"] if _of_task(arm, task).rate_at_edge else []
        notes += [f"{failed} of {len(searched)} rates without a score"] if failed else []
        svg = None
        if scores[name, task]:
            scale, own = scales[name, task]
            notes += ["scale of its own"] if own else []
            label = f"Held-out score of {name} over learning rate"
            svg = _search_svg(searched, _of_task(arm, task).rate, scale, label)
        panels.append(Panel(name, task, svg, "; ".join(notes) or None))
    return panels


def curve_panels(results: Results) -> list[Panel]:
    """One panel per arm (and task): held-out score over steps, a line per seed, other rates in the background."""
    groups = _groups((arm, arm.runs) for arm in results.arms)
    searched = _groups((arm, arm.search) for arm in results.arms)
    curves, behind = {}, {}
    for key, (arm, runs) in groups.items():
        chosen = _of_task(arm, key[1]).rate
        others = searched.get(key, (arm, []))[1]
        curves[key] = [run.curve for run in runs]
        behind[key] = [one.curve for one in others if one.rate != chosen]
    seen = {key: [p[1] for curve in found for p in curve if p[1] is not None] for key, found in curves.items()}
    scales = _scales(seen, 0.45)
    panels = []
    for key, (arm, _) in groups.items():
        if not seen[key]:
            continue
        scale, own = scales[key]
        notes = ["budget short"] if _of_task(arm, key[1]).flat is False else []
        notes += ["scale of its own"] if own else []
        svg = _curves_svg(curves[key], behind[key], scale, f"Learning curves of {key[0]}")
        panels.append(Panel(key[0], key[1], svg, "; ".join(notes) or None))
    return panels


Key = tuple[str, str | None]


def _groups(arms: Iterable[tuple[ArmResult, Sequence[T]]]) -> dict[Key, tuple[ArmResult, list[T]]]:
    found: dict[Key, tuple[ArmResult, list[T]]] = {}
    for arm, entries in arms:
        for entry in entries:
            found.setdefault((arm.name, entry.task), (arm, []))[1].append(entry)
    return found


def _of_task(arm: ArmResult, task: str | None) -> ArmResult | Choice:
    """The object that has the rate and flags of a model."""
    return arm if task is None else arm.by_model.get(task, arm)


def _scales(series: Mapping[Key, Sequence[float]], part: float) -> dict[Key, tuple[tuple[float, float], bool]]:
    """Panel → lowest and highest score drawn, and whether it has its own scale.

    Panels of one task (None: all tasks at once) share a scale, so that heights compare. Its depth is four times the
    distance from highest to median panel, at least ``part`` of the highest score; a panel below it gets its own scale.
    """
    found = {}
    for task in {key[1] for key in series}:
        shown = {key: values for key, values in series.items() if key[1] == task and values}
        if not shown:
            continue
        highest, lowest = max(map(max, shown.values())), min(map(min, shown.values()))
        depth = max(4 * (highest - median(map(max, shown.values()))), part * abs(highest))
        floor = max(lowest, highest - depth)
        for key, values in shown.items():
            own = max(values) < floor
            found[key] = padded(values if own else [floor, highest]), own
    return found


def _search_svg(searched: Sequence[SearchRun], chosen: float | None, scale: tuple[float, float], label: str) -> Markup:
    left, right, bottom = 38.0, WIDTH - 10, HEIGHT - 26
    rates = [s.rate for s in searched]
    across, up = Axis(*padded(rates, log=True), left, right, log=True), Axis(*scale, bottom, 10)
    parts = value_lines(up, left, right)
    for value in _told(rates, chosen, across):
        parts.append(text(across.at(value), bottom + 18, rate_text(value), "middle", "tick"))
    scored = sorted((s.rate, s.score) for s in searched if s.score is not None)
    if len(scored) > 1:
        parts.append(inside_axes(left, right, up, path(((across.at(r), up.at(v)) for r, v in scored), "curve")))
    for entry in searched:
        x, score = across.at(entry.rate), entry.score
        if score is None:
            why = entry.reason or entry.status
            parts.append(text(x, bottom - 5, "×", "middle", "cross"))
            parts.append(tag("circle", {"cx": x, "cy": bottom - 9, "r": 8, "class": "hover"}, tag("title", {}, why)))
            continue
        style = "mark chosen" if entry.rate == chosen else "mark other"
        about = f"{rate_text(entry.rate)}: {metric_text(score)}" + (", chosen" if entry.rate == chosen else "")
        inner = tag("title", {}, about)
        parts.append(tag("circle", {"cx": x, "cy": up.clipped(score), "r": 4.5, "class": style}, inner))
    return picture(WIDTH, HEIGHT, "chart panel", label, *parts)


def _told(rates: Sequence[float], chosen: float | None, across: Axis) -> list[float]:
    """The rates with room for a tick label: the chosen one, the ends, then the others from the left."""
    found: list[float] = []
    for value in sorted(rates, key=lambda r: (r != chosen, r not in (min(rates), max(rates)), r)):
        half = text_width(rate_text(value), TICK) / 2 + 6
        if all(abs(across.at(value) - across.at(o)) > half + text_width(rate_text(o), TICK) / 2 for o in found):
            found.append(value)
    return found


def _curves_svg(
    curves: Sequence[Curve],
    behind: Sequence[Curve],
    scale: tuple[float, float],
    label: str,
) -> Markup:
    steps = [point[0] for curve in [*curves, *behind] for point in curve]
    left, right, bottom = 38.0, WIDTH - 10, HEIGHT - 26
    across, up = Axis(min(steps), max(max(steps), min(steps) + 1), left, right), Axis(*scale, bottom, 10)
    parts = value_lines(up, left, right)
    parts += [
        text(left, bottom + 18, f"{min(steps)}", "start", "tick"),
        text(right, bottom + 18, f"{max(steps)} steps", "end", "tick"),
    ]
    for group, style in ((behind, "curve behind"), (curves, "curve")):
        for curve in group:
            points = [(across.at(s), up.at(v)) for s, v in curve if v is not None]
            if len(points) > 1:
                parts.append(inside_axes(left, right, up, path(points, style)))
    return picture(WIDTH, HEIGHT, "chart panel", label, *parts)


def _cut(name: str, width: float) -> str:
    while text_width(name, 12) > width and len(name) > 4:
        name = name[:-2].rstrip() + "…"
    return name
