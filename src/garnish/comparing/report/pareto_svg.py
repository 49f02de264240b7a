"""The Pareto plot of a comparison as SVG; the page's style sheet gives the colours."""

from __future__ import annotations

from markupsafe import Markup

from garnish.comparing.report.pareto import RADIUS, Pareto, Point
from garnish.reporting.number_format import SPACE, signed_text
from garnish.reporting.svg import line, path, picture, tag, text


def pareto_svg(plot: Pareto) -> Markup:
    """Draw the Pareto plot; its parts have CSS classes, which the page's style sheet colours."""
    left, right, bottom = plot.across.start, plot.across.end, plot.up.start
    edge = left - 36 if plot.zero is not None else left
    small = plot.width < 500
    parts: list[str] = []
    for value in plot.up.ticks(4 if small else 6):
        y = plot.up.at(value)
        parts.append(line(edge, y, right, y, "zero" if value == 0 else "grid"))
        parts.append(
            text(edge - 8, y + 4, signed_text(value) if value % 1 else signed_text(value).split(".")[0], "end", "tick")
        )
    for value in plot.across.ticks(3 if small else 7):
        x = plot.across.at(value)
        parts.append(line(x, bottom, x, bottom + 4, "grid"))
        parts.append(text(x, bottom + 18, _tick(plot, value), "middle", "tick"))
    if plot.zero is not None:
        parts.append(text(plot.zero, bottom + 18, "0", "middle", "tick"))
        parts.append(line(left - 6, plot.up.end, left - 6, bottom, "grid"))
    parts.append(text((edge + right) / 2, bottom + 38, plot.cost.title, "middle", "title"))
    parts.append(text(edge - 36, 12, "Δm, %", style="tick"))
    if plot.front:
        parts.append(path(plot.front, "front"))
    for label in plot.labels:
        if label.leader:
            parts.append(line(label.point.x, label.point.y, *label.leader, "leader"))
    parts += [_mark(plot, point) for point in plot.points]
    for label in plot.labels:
        dim = label.point.dominated or label.point.role != "adapter"
        parts.append(text(label.x, label.y, label.point.label, label.anchor, "name dim" if dim else "name"))
    style = "chart pareto small" if small else "chart pareto"
    return picture(plot.width, plot.height, style, f"Δm over {plot.cost.title.lower()}", *parts)


def _tick(plot: Pareto, value: float) -> str:
    shown = plot.cost.show(value)
    number, space, unit = shown.partition(SPACE)
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def _mark(plot: Pareto, point: Point) -> Markup:
    about = f"{point.name}: Δm {signed_text(point.delta)} %, {plot.cost.title.lower()} {plot.cost.show(point.cost)}"
    about += ", dominated" if point.dominated else ""
    style = f"mark {point.role}" + (" dominated" if point.dominated else "")
    inner = tag("title", {}, about)
    if point.role == "adapter":
        return tag("circle", {"cx": point.x, "cy": point.y, "r": RADIUS, "class": style}, inner)
    half = RADIUS - 0.5
    corner: dict[str, str | float | None] = {
        "x": point.x - half,
        "y": point.y - half,
        "width": 2 * half,
        "height": 2 * half,
        "class": style,
    }
    turn = f"rotate(45 {point.x:.1f} {point.y:.1f})" if point.role == "control" else None
    return tag("rect", {**corner, "transform": turn}, inner)
