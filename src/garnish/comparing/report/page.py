"""The report of a comparison: one page that needs nothing beside itself, made from results.json alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from garnish.comparing.report.number_format import figure, find, metric, seconds
from garnish.comparing.report.page_table import GROUPS, main_table, methods_text, rates_text
from garnish.comparing.report.pareto import COSTS, lay_out
from garnish.comparing.report.pareto_svg import pareto_svg
from garnish.comparing.report.small_multiples import curve_panels, gap_panel, search_panels, void_everywhere
from garnish.comparing.report.spreadsheet import csv_text
from garnish.comparing.report.verdict import protocol, verdict
from garnish.files.atomic import write_file

#: picture files that a page may carry; nothing else of the folder is read into it
PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
#: sizes of the first Pareto picture; the page shows the one that fits
WIDE = ((1180, 480), (760, 440), (343, 380))
SMALL = (380, 360)


def write_page(results: Mapping[str, Any], folder: Path) -> Path:
    """Write ``folder/index.html``, whole or not at all, from the content of results.json; returns its path.

    The page carries its style, scripts, pictures and data, asks nothing of any network (a policy in it forbids
    that) and runs no script but its own two. Pictures of contact sheets are read from ``folder``; one that is
    missing, or lies outside of it, is named in its place.

    Raises:
        OSError: no space, no permission; a former page is as it was.
    """
    file = folder / "index.html"
    write_file(file, page(results, folder).encode())
    return file


def page(results: Mapping[str, Any], folder: Path) -> str:
    """HTML of the report; see :func:`write_page`."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    data = json.dumps(results, ensure_ascii=False, allow_nan=False)
    scripts = [_own("theme.js"), _own("sort.js")]
    return environment.from_string(_own("page.html")).render(
        results=results,
        verdict=verdict(results),
        protocol=protocol(results),
        table=main_table(results),
        pareto=[svg for width, height in WIDE if (svg := _pareto(results, 0, width, height))],
        others=[svg for number in range(1, len(COSTS)) if (svg := _pareto(results, number, *SMALL))],
        gaps=[
            (task, svg, void_everywhere(results, task))
            for task in results["tasks"]
            if (svg := gap_panel(results, task))
        ],
        heats=_heats(results),
        details=_details(results),
        searches=search_panels(results),
        curves=curve_panels(results),
        sheets=[_sheet(sheet, folder) for sheet in results.get("sheets") or []],
        arms=[
            (arm, methods_text(arm), rates_text(arm), GROUPS.get(arm["role"], "Reference")) for arm in results["arms"]
        ],
        wall=seconds(results["wall_seconds"]) if results.get("wall_seconds") is not None else None,
        plain=_plain,
        style=Markup(_own("page.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts],
        data=_in_script(data),
        json_url=_data_url("application/json", data.encode()),
        csv_url=_data_url("text/csv", csv_text(results).encode()),
    )


def _own(name: str) -> str:
    return resources.files("garnish.comparing.report").joinpath(name).read_text("utf-8")


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _in_script(data: str) -> Markup:
    """JSON that cannot end the element it stands in; a JSON reader reads the same from it."""
    for char in "<>&\u2028\u2029":
        data = data.replace(char, f"\\u{ord(char):04x}")
    return Markup(data)


def _plain(value: Any, inside: bool = False) -> str:
    """An option in words: yes and no, lists with commas, mappings as ``name value``."""
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


def _pareto(results: Mapping[str, Any], number: int, width: int, height: int) -> Markup | None:
    plot = lay_out(results, COSTS[number], width, height)
    return pareto_svg(plot) if plot else None


def _heats(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per task with classes: arms across, classes down, the depth of a cell's colour by its value."""
    found = []
    for task, about in results["tasks"].items():
        places = [n for n, arm in enumerate(results["arms"]) if find(arm, "per_class", task)]
        if not places:
            continue
        names = list(about.get("classes") or [])
        names += [c for n in places for c in results["arms"][n]["per_class"][task] if c not in names]
        names = list(dict.fromkeys(str(name) for name in names))
        rows = []
        for name in names:
            cells = [figure(results, metric, "arms", n, "per_class", task, name, "mean") for n in places]
            spans = [find(results, "arms", n, "per_class", task, name) or {} for n in places]
            values = [cell.value for cell in cells if cell.value is not None]
            if values:
                rows.append((name, list(zip(cells, spans, strict=True)), max(values)))
        every = [c.value for _, cells, _ in rows for c, _ in cells if c.value is not None]
        arms = [(str(results["arms"][n]["name"]), results["arms"][n]["role"]) for n in places]
        found.append(
            {"task": task, "arms": arms, "rows": rows, "low": min(every, default=0), "high": max(every, default=1)}
        )
    return found


def _details(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per task with more than its headline: every metric of every arm."""
    found = []
    for task in results["tasks"]:
        places = [n for n, arm in enumerate(results["arms"]) if find(arm, "metrics", task)]
        names = list(dict.fromkeys(m for n in places for m in results["arms"][n]["metrics"][task]))
        if len(names) < 2:
            continue
        rows = [
            (
                str(results["arms"][n]["name"]),
                [figure(results, metric, "arms", n, "metrics", task, m, "mean") for m in names],
            )
            for n in places
        ]
        found.append({"task": task, "metrics": names, "rows": rows})
    return found


def _sheet(sheet: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    cells = []
    for name, place in sheet["cells"].items():
        value = find(sheet, "values", name)
        shown = metric(value) if isinstance(value, int | float) else ""
        cells.append({"name": name, "place": str(place), "url": _picture(folder, str(place)), "value": shown})
    return {"kind": sheet["kind"], "task": sheet["task"], "picture": str(sheet["picture"]), "cells": cells}


def _picture(folder: Path, place: str) -> str | None:
    """Data URL of a picture inside the folder; None where there is none."""
    root, file = folder.resolve(), (folder / place).resolve()
    kind = PICTURES.get(file.suffix.lower())
    if kind is None or not file.is_relative_to(root) or not file.is_file():
        return None
    return _data_url(kind, file.read_bytes())
