"""Tables and pictures of the reports under docs/results, for docs/results/README.md and README.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from garnish.comparing.report.page_table import Cell, ReportTable, main_table, marks, rates_text
from garnish.comparing.report.pareto import COSTS, FONT, Pareto, lay_out
from garnish.comparing.report.pareto_svg import pareto_svg
from garnish.comparing.report.results import ArmResult, Results, TaskFacts, read_results
from garnish.comparing.report.verdict import protocol, verdict
from garnish.reporting.number_format import bytes_text, count_text, metric_text, signed_text
from garnish.reporting.svg import tag

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
IMAGES = ROOT / "docs" / "images"
#: Ends the folder of a report with more steps on a set that has one already.
LONGER = "_long"
#: Groups of the main table that stand in a report's first table; the others stand in its second.
QUALITY = ("Quality on test", "Δm", "Gap recovered")
#: Colours of a picture outside of a page: paper, ink, faint, grey, rule, accent.
LIGHT = ("#ffffff", "#1f211e", "#77756d", "#bdb9ae", "#e4e2db", "#2c6e4f")
DARK = ("#161815", "#e8e6df", "#8f8d85", "#66685f", "#30322e", "#7fc7a3")


def reports() -> dict[str, Results]:
    """Name of the folder → content of its results.json."""
    files = sorted(RESULTS.glob("*/results.json"))
    return {file.parent.name: read_results(json.loads(file.read_text("utf-8")), str(file)) for file in files}


def pictures() -> dict[Path, str]:
    """File → the Pareto picture of a report."""
    plots = {name: lay_out(results, COSTS[0], 820, 440) for name, results in reports().items()}
    return {IMAGES / f"pareto_{name}.svg": standalone(plot) for name, plot in plots.items() if plot is not None}


def standalone(plot: Pareto) -> str:
    """The Pareto picture as a file of its own, in light or dark colours as its reader prefers."""

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


def summary() -> str:
    """One row an arm, over all sets: its size, its headline metrics and Δm on each; the longer runs are left out."""
    found = {name: results for name, results in reports().items() if not name.endswith(LONGER)}
    names = list(dict.fromkeys(arm.name for results in found.values() for arm in results.arms))
    order = {"frozen": 0, "adapter": 1, "single": 2, "multi": 2, "scratch": 3, "control": 4}
    roles = {arm.name: arm.role for results in found.values() for arm in results.arms}
    names.sort(key=lambda name: order[roles[name]])
    head = ["", "encoder, trained", "bundle"]
    for name, results in found.items():
        metrics = " / ".join(
            f"{task} {about.headline.removesuffix('_at_best_threshold')}" + (" ↑" if about.higher_is_better else " ↓")
            for task, about in results.tasks.items()
        )
        head += [f"[{name}](docs/results/README.md#{name}): {metrics}", "Δm, %"]
    rows = []
    for name in names:
        arms = {key: next((a for a in results.arms if a.name == name), None) for key, results in found.items()}
        known = [arm for arm in arms.values() if arm is not None]
        sizes = _span([arm.encoder_trainable for arm in known], count_text)
        row = [name, sizes, _span([arm.bundle_bytes for arm in known], bytes_text)]
        for key, results in found.items():
            row += _quality(arms[key], results.tasks)
        rows.append(row)
    return _markdown(head, rows)


def section(name: str, results: Results) -> str:
    """A report: what it shows, its tables, the command, the page."""
    said = verdict(results)
    table = main_table(results)
    about = vars(results.environment)
    lines = [
        f"## {name}",
        "",
        f"{results.title}. {said.line}",
        "",
        *(f"- {remark}" for remark in said.remarks),
        "",
        f"![Δm over trained encoder parameters](../images/pareto_{name}.svg)",
        "",
        _part(table, results, quality=True),
        "",
        _part(table, results, quality=False),
        "",
        f"{_sentence(protocol(results))} {', '.join(f'{key} {value}' for key, value in about.items())}.",
        "",
        f"    {results.command}",
        "",
        f"[The page]({name}/index.html) (download it; it opens offline), [results.json]({name}/results.json),"
        f" [results.csv]({name}/results.csv).",
    ]
    return "\n".join(lines)


def results_table() -> str:
    """The generated part of docs/results/README.md."""
    return "\n\n".join(section(name, results) for name, results in reports().items()) + "\n"


def _part(table: ReportTable, results: Results, *, quality: bool) -> str:
    """Columns of the main table as Markdown; the first part has rates and marks beside it."""
    chosen = [n for n, column in enumerate(table.columns) if (column.group in QUALITY) == quality]
    head = ["", *(_heading(table, n) for n in chosen)] + (["rate", "note"] if quality else [])
    arms = {arm.name: arm for arm in results.arms}
    rows = []
    for row in (row for body in table.bodies.values() for row in body):
        cells = [row.name, *(_cell(row.cells[n]) for n in chosen)]
        rows.append(cells + ([rates_text(arms[row.name]), ", ".join(marks(arms[row.name]))] if quality else []))
    return _markdown(head, rows)


def _heading(table: ReportTable, number: int) -> str:
    column = table.columns[number]
    first = {"Gap recovered": "gap recovered, ", "Δm": "Δm, "}.get(column.group, "")
    return (first + " ".join(column.name.split("\n")).strip()).replace("Δm, mean %", "Δm, %")


def _cell(cell: Cell) -> str:
    if cell.words:
        return "void"
    main = f"**{cell.main.text}**" if cell.best else cell.main.text
    under = cell.between.join(figure.text for figure in cell.under)
    return f"{main} ({cell.before}{under})" if under else main


def _quality(arm: ArmResult | None, tasks: Mapping[str, TaskFacts]) -> list[str]:
    if arm is None:
        return ["–", "–"]
    if arm.status != "done":
        return [arm.status, ""]
    spreads = [arm.metrics.get(task, {}).get(about.headline) for task, about in tasks.items()]
    shown = ["–" if one is None or one.mean is None else metric_text(one.mean) for one in spreads]
    ends = arm.delta_interval
    span = "" if ends is None else f" ({signed_text(ends[0])} to {signed_text(ends[1])})"
    return [" / ".join(shown), "–" if arm.delta is None else signed_text(arm.delta) + span]


def _span(figures: Sequence[int | None], show: Callable[[float], str]) -> str:
    """One figure, or the least and the largest of those on several sets."""
    values = sorted(figure for figure in figures if figure is not None)
    ends = list(dict.fromkeys(show(value) for value in (values[:1] + values[-1:])))
    return " to ".join(ends) or "–"


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _sentence(phrases: Sequence[str]) -> str:
    text = "; ".join(phrases)
    return text[:1].upper() + text[1:] + "."
