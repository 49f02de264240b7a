"""The report of a comparison: one self-contained HTML page, made from results.json alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import final

from markupsafe import Markup

from garnish.comparing.report.page_table import main_table, methods_text, rates_text
from garnish.comparing.report.pareto import COSTS, lay_out
from garnish.comparing.report.pareto_svg import pareto_svg
from garnish.comparing.report.results import Results, Sheet, Spread
from garnish.comparing.report.small_multiples import curve_panels, gap_panel, search_panels, void_everywhere
from garnish.comparing.report.spreadsheet import csv_text
from garnish.comparing.report.verdict import protocol, verdict
from garnish.comparing.typed_json import as_json
from garnish.errors import showable
from garnish.files.atomic import write_file
from garnish.output import showable_json
from garnish.reporting.html_page import asset, data_url, html_page, shown_page
from garnish.reporting.number_format import Figure, figure, metric_text, seconds_text

#: Picture files that are embedded into the page; other files of the folder are never read.
PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
#: Sizes of the first Pareto plot; the page shows the one that fits. One plot for all widths is not enough: scaled from
#: 760 pixels to a phone's 343, letters of 12 pixels shrink to 5.4, and labels are placed for one letter size.
WIDE = ((1180, 480), (760, 440), (343, 380))
SMALL = (380, 360)


def write_page(results: Results, folder: Path) -> Path:
    """Write ``folder/index.html`` atomically from the results of a comparison; returns its path.

    The page embeds its style, scripts, pictures and data, makes no network requests (its content security policy
    forbids them) and runs only its own two scripts. Pictures of contact sheets are read from ``folder``; one that is
    missing, or lies outside of it, is replaced by its name.

    Raises:
        OSError: no space, no permission; a previous page is unchanged.
    """
    file = folder / "index.html"
    write_file(file, page(results, folder).encode())
    return file


def page(results: Results, folder: Path) -> str:
    """HTML of the report; see :func:`write_page`."""
    data = showable_json(json.dumps(as_json(results), ensure_ascii=False, allow_nan=False))
    made = html_page(
        _own("page.html"),
        styles=[asset("theme.css"), asset("report.css"), _own("page.css")],
        scripts=[asset("theme.js"), _own("sort.js")],
        results=results,
        verdict=verdict(results),
        protocol=protocol(results),
        table=main_table(results),
        pareto=[svg for width, height in WIDE if (svg := _pareto(results, 0, width, height))],
        others=[svg for number in range(1, len(COSTS)) if (svg := _pareto(results, number, *SMALL))],
        gaps=[
            (task, svg, void_everywhere(results, task)) for task in results.tasks if (svg := gap_panel(results, task))
        ],
        heats=_heats(results),
        details=_details(results),
        searches=search_panels(results),
        curves=curve_panels(results),
        sheets=[(sheet, _cells(sheet, folder)) for sheet in results.sheets],
        arms=[(arm, methods_text(arm), rates_text(arm)) for arm in results.arms],
        wall=seconds_text(results.wall_seconds),
        plain=_plain,
        entries=vars,
        data=_in_script(data),
        json_url=data_url("application/json", data.encode()),
        csv_url=data_url("text/csv", csv_text(results).encode()),
    )
    # names may turn the direction of text, say; only the place of a figure in the data needs them as they are
    made = re.sub(r'data-path="[^"]*"', lambda found: showable(found[0], escape=lambda c: f"&#{ord(c)};"), made)
    return shown_page(made)


def _own(name: str) -> str:
    return resources.files("garnish.comparing.report").joinpath(name).read_text("utf-8")


def _in_script(data: str) -> Markup:
    """Escape JSON so that it cannot end the script element; it parses to the same data."""
    for char in "<>&\u2028\u2029":
        data = data.replace(char, f"\\u{ord(char):04x}")
    return Markup(data)


def _plain(value: object, inside: bool = False) -> str:
    """The value of an option as text: yes and no, lists with commas, mappings as ``name value``."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner, True)}" for key, inner in value.items()) or "–"
    if isinstance(value, list | tuple):
        listed = ", ".join(_plain(inner, True) for inner in value) or "–"
        return f"({listed})" if inside and value else listed
    return str(value)


def _pareto(results: Results, number: int, width: int, height: int) -> Markup | None:
    plot = lay_out(results, COSTS[number], width, height)
    return pareto_svg(plot) if plot else None


@final
@dataclass(frozen=True)
class _Heat:
    """The heat map of a task with classes: arms with roles as columns, classes with their best figure as rows."""

    task: str
    arms: list[tuple[str, str]]
    rows: list[tuple[str, list[tuple[Figure, Spread | None]], float]]
    low: float
    high: float


def _heats(results: Results) -> list[_Heat]:
    """The heat map of each task with classes."""
    found = []
    for task, about in results.tasks.items():
        arms = [(number, arm, own) for number, arm in enumerate(results.arms) if (own := arm.per_class.get(task))]
        if not arms:
            continue
        names = dict.fromkeys([*(about.classes or ()), *(name for _, _, own in arms for name in own)])
        rows = []
        for name in names:
            spans = [own.get(name) for _, _, own in arms]
            cells = [
                figure(None if s is None else s.mean, metric_text, "arms", n, "per_class", task, name, "mean")
                for (n, _, _), s in zip(arms, spans, strict=True)
            ]
            values = [cell.value for cell in cells if cell.value is not None]
            if values:
                rows.append((name, list(zip(cells, spans, strict=True)), max(values)))
        every = [c.value for _, cells, _ in rows for c, _ in cells if c.value is not None]
        across = [(arm.name, str(arm.role)) for _, arm, _ in arms]
        found.append(_Heat(task, across, rows, min(every, default=0), max(every, default=1)))
    return found


@final
@dataclass(frozen=True)
class _Detail:
    """The table of all metrics of a task that has several: names of the metrics, and arms with their figures."""

    task: str
    metrics: list[str]
    rows: list[tuple[str, list[Figure]]]


def _details(results: Results) -> list[_Detail]:
    found = []
    for task in results.tasks:
        arms = [(number, arm.name, own) for number, arm in enumerate(results.arms) if (own := arm.metrics.get(task))]
        names = list(dict.fromkeys(name for _, _, own in arms for name in own))
        if len(names) < 2:
            continue
        rows = []
        for number, arm, own in arms:
            means = {name: None if (spread := own.get(name)) is None else spread.mean for name in names}
            path = ("arms", number, "metrics", task)
            rows.append((arm, [figure(mean, metric_text, *path, name, "mean") for name, mean in means.items()]))
        found.append(_Detail(task, names, rows))
    return found


@final
@dataclass(frozen=True)
class _SheetCell:
    """A cell of a sheet: name (an arm, picture or target), file, data URL, and metric as text."""

    name: str
    place: str
    url: str | None
    value: str


def _cells(sheet: Sheet, folder: Path) -> list[_SheetCell]:
    words = {name: metric_text(value) for name, value in sheet.values.items()}
    return [_SheetCell(name, at, _picture(folder, at), words.get(name, "")) for name, at in sheet.cells.items()]


def _picture(folder: Path, place: str) -> str | None:
    """Data URL of a picture inside the folder; None if there is none."""
    root, file = folder.resolve(), (folder / place).resolve()
    kind = PICTURES.get(file.suffix.lower())
    if kind is None or not file.is_relative_to(root) or not file.is_file():
        return None
    return data_url(kind, file.read_bytes())
