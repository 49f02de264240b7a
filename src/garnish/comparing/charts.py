"""Drawings of a comparison as SVG whose colours come from the page, and the Pareto picture as a file of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from garnish.bundles.atomic import write_file
from garnish.comparing.axes import line, path, picture, tag, text
from garnish.comparing.figures import SPACE, signed
from garnish.comparing.pareto import COSTS, FONT, RADIUS, Pareto, Point, lay_out
from garnish.errors import OptionError

#: colours of the picture written as a file: paper, ink, faint, grey, rule, accent
LIGHT = ("#ffffff", "#1f211e", "#77756d", "#bdb9ae", "#e4e2db", "#2c6e4f")
DARK = ("#161815", "#e8e6df", "#8f8d85", "#66685f", "#30322e", "#7fc7a3")


def pareto_svg(plot: Pareto) -> Markup:
    """The Pareto picture; classes name its parts, the page's style sheet colours them."""
    left, right, bottom = plot.across.start, plot.across.end, plot.up.start
    edge = left - 36 if plot.zero is not None else left
    small = plot.width < 500
    parts: list[str] = []
    for value in plot.up.ticks(4 if small else 6):
        y = plot.up.at(value)
        parts.append(line(edge, y, right, y, "zero" if value == 0 else "grid"))
        parts.append(text(edge - 8, y + 4, signed(value) if value % 1 else signed(value).split(".")[0], "end", "tick"))
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


def write_pareto(results: Mapping[str, Any], file: Path) -> Path:
    """Write Δm over trained encoder parameters as ``.svg`` (light and dark) or ``.png`` (light, 1640 pixels wide).

    Args:
        results: content of results.json.
        file: its suffix chooses the format.

    Raises:
        OptionError: another suffix, or no arm has both figures.
    """
    plot = lay_out(results, COSTS[0], 820, 440)
    if plot is None:
        raise OptionError(f"{file}: no arm has both Δm and trained parameters, so there is nothing to draw")
    if file.suffix == ".svg":
        write_file(file, _standalone(plot).encode())
    elif file.suffix == ".png":
        write_file(file, _png(plot))
    else:
        raise OptionError(f"{file}: a Pareto picture is written as .svg or .png, not {file.suffix or 'without suffix'}")
    return file


def _tick(plot: Pareto, value: float) -> str:
    shown = plot.cost.show(value)
    number, space, unit = shown.partition(SPACE)
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def _mark(plot: Pareto, point: Point) -> Markup:
    about = f"{point.name}: Δm {signed(point.delta)} %, {plot.cost.title.lower()} {plot.cost.show(point.cost)}"
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


def _standalone(plot: Pareto) -> str:
    def rules(colours: tuple[str, ...]) -> str:
        paper, ink, faint, grey, rule, accent = colours
        return (
            f".paper{{fill:{paper}}}text{{fill:{ink}}}.tick,.title,.dim{{fill:{faint}}}.name{{stroke:{paper}}}"
            f".grid{{stroke:{rule}}}.zero{{stroke:{grey}}}.leader{{stroke:{faint}}}.front{{stroke:{accent}}}"
            f".mark{{fill:{paper};stroke:{ink}}}.adapter{{fill:{accent};stroke:{paper}}}.dominated{{stroke:{grey}}}"
            f".adapter.dominated{{fill:{grey};stroke:{paper}}}"
        )

    style = (
        f"text{{font:{FONT}px system-ui,sans-serif}}.dim.dim{{font-weight:400}}"
        ".name{font-weight:600;paint-order:stroke;stroke-width:3px;stroke-linejoin:round}"
        ".zero{stroke-dasharray:4 4}.leader{stroke-width:.6}.front{fill:none;stroke-width:1.6}.mark{stroke-width:1.5}"
        f"{rules(LIGHT)}@media(prefers-color-scheme:dark){{{rules(DARK)}}}"
    )
    drawn = str(pareto_svg(plot))
    head, body = drawn.split(">", 1)
    paper = tag("rect", {"width": "100%", "height": "100%", "class": "paper"})
    return f"{head}>{tag('style', {}, Markup(style))}{paper}{body}\n"


def _png(plot: Pareto) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patheffects import withStroke

    paper, ink, faint, grey, rule, accent = LIGHT
    figure = plt.figure(figsize=(plot.width / 100, plot.height / 100), dpi=200, facecolor=paper)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, plot.width)
    axes.set_ylim(plot.height, 0)
    axes.axis("off")
    points = 72 / 100  # a pixel of the layout in points
    edge = plot.across.start - (36 if plot.zero is not None else 0)
    bottom = plot.up.start

    def write(x: float, y: float, content: str, colour: str, anchor: str = "start", weight: str = "normal") -> None:
        side = {"start": "left", "middle": "center", "end": "right"}[anchor]
        font = {"color": colour, "ha": side, "va": "baseline", "fontsize": 11 * points, "fontweight": weight}
        axes.text(x, y, content, font, parse_math=False, path_effects=[withStroke(linewidth=2.5, foreground=paper)])

    for value in plot.up.ticks(6):
        y = plot.up.at(value)
        dashed = (0, (4, 4)) if value == 0 else "solid"
        axes.plot([edge, plot.across.end], [y, y], color=faint if value == 0 else rule, lw=0.7, ls=dashed)
        write(edge - 8, y + 4, signed(value) if value % 1 else signed(value).split(".")[0], faint, "end")
    for value in plot.across.ticks(7):
        write(plot.across.at(value), bottom + 18, _tick(plot, value), faint, "middle")
    if plot.zero is not None:
        write(plot.zero, bottom + 18, "0", faint, "middle")
        axes.plot([plot.across.start - 6] * 2, [plot.up.end, bottom], color=rule, lw=0.7)
    write((edge + plot.across.end) / 2, bottom + 38, plot.cost.title, faint, "middle")
    write(8, 12, "Δm, %", faint)
    if plot.front:
        axes.plot(*zip(*plot.front, strict=True), color=accent, lw=1.2)
    for label in plot.labels:
        point = label.point
        if label.leader:
            axes.plot([point.x, label.leader[0]], [point.y, label.leader[1]], color=faint, lw=0.4, zorder=1)
        strong = point.role == "adapter" and not point.dominated
        write(label.x, label.y, point.label, ink if strong else faint, label.anchor, "bold" if strong else "normal")
    for point in plot.points:
        colour = grey if point.dominated else accent if point.role == "adapter" else ink
        shape = {"adapter": "o", "control": "D"}.get(point.role, "s")
        fill = colour if point.role == "adapter" else paper
        side = 2 * RADIUS * points
        axes.plot(
            point.x, point.y, shape, ms=side * (0.8 if shape == "D" else 0.9), mfc=fill, mec=colour, mew=1, zorder=3
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=paper)
    plt.close(figure)
    return buffer.getvalue()
