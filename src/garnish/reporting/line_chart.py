"""Charts of numbers over numbers as SVG: lines with a key, and columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from garnish.reporting.svg import Axis, inside_axes, line, padded, path, picture, tag, text, text_width, value_lines

#: Lines of one chart that can be told apart.
STYLES = ("first", "second", "third")
_WIDTH, _HEIGHT = 290.0, 170.0
_LEFT, _RIGHT, _BELOW, _ABOVE = 46.0, 10.0, 26.0, 24.0


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    label: str,
    *,
    unit: str = "",
    bounds: tuple[float, float] | None = None,
) -> Markup | None:
    """Lines over a common axis; None where there are not two points.

    Args:
        lines: name → (x, y) in ascending x, at most three; what is not finite is left out.
        label: what it shows, for screen readers.
        unit: behind the last x.
        bounds: lowest and highest y; None: those of the points, with a margin.
    """
    kept = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in list(lines.items())[: len(STYLES)]
    }
    points = [point for found in kept.values() for point in found]
    if len({x for x, _ in points}) < 2:
        return None
    across, up = _axes([x for x, _ in points], bounds or padded(y for _, y in points))
    parts = [*value_lines(up, across.start, across.end), *_ends(across, unit)]
    for style, found in zip(STYLES, kept.values(), strict=False):
        if len(found) > 1:
            drawn = path(((across.at(x), up.at(y)) for x, y in found), f"curve {style}")
            parts.append(inside_axes(across.start, across.end, up, drawn))
        elif found:
            at: dict[str, str | float | None] = {"cx": across.at(found[0][0]), "cy": up.at(found[0][1]), "r": 2.5}
            parts.append(tag("circle", {**at, "class": f"point {style}"}))
    return picture(_WIDTH, _HEIGHT, "chart panel", label, *parts, *(_key(list(kept)) if len(kept) > 1 else []))


def column_chart(edges: Sequence[float], values: Sequence[float], label: str, *, unit: str = "") -> Markup | None:
    """Columns from 0; None where no value is known.

    Args:
        edges: N + 1 ascending.
        values: N, not below 0; NaN: no column.
        label: what it shows, for screen readers.
        unit: behind the last edge.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known or max(known) <= 0:
        return None
    across, up = _axes(edges, (0, 1.05 * max(known)))
    parts = [*value_lines(up, across.start, across.end), *_ends(across, unit)]
    for low, high, value in zip(edges[:-1], edges[1:], values, strict=True):
        if math.isfinite(value):
            left, top = across.at(low), up.at(value)
            width = max(across.at(high) - left - 1, 0.5)
            box: dict[str, str | float | None] = {"x": left, "y": top, "width": width, "height": up.start - top}
            parts.append(tag("rect", {**box, "class": "column"}, tag("title", {}, f"{low:g} to {high:g}: {value:.4g}")))
    return picture(_WIDTH, _HEIGHT, "chart panel", label, *parts)


def _axes(across: Sequence[float], up: tuple[float, float]) -> tuple[Axis, Axis]:
    return (
        Axis(min(across), max(across), _LEFT, _WIDTH - _RIGHT),
        Axis(*up, _HEIGHT - _BELOW, _ABOVE),
    )


def _ends(across: Axis, unit: str) -> list[Markup]:
    y = _HEIGHT - _BELOW + 18
    return [
        text(across.start, y, f"{across.low:g}", "start", "tick"),
        text(across.end, y, f"{across.high:g}{' ' * bool(unit)}{unit}", "end", "tick"),
    ]


def _key(names: Sequence[str]) -> list[Markup]:
    parts, x = [], _LEFT
    for style, name in zip(STYLES, names, strict=False):
        parts.append(line(x, 9, x + 14, 9, f"curve {style}"))
        parts.append(text(x + 18, 13, name, "start", "tick"))
        x += 18 + text_width(name, 11.5) + 12
    return parts
