"""The page of a run, ``index.html`` in its folder: how it stands, curves, the best step, pictures, how to go on.

It is written anew at every evaluation, so it holds no pictures: they are files of the folder, told by relative links,
and go with it wherever it is moved. Style and the one script are inside; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple, final

from markupsafe import Markup

from garnish.checking.plain_data import Json
from garnish.reporting.detail import Detail, shown_rows
from garnish.reporting.html_page import asset, html_page, shown_page
from garnish.reporting.line_chart import line_chart
from garnish.reporting.number_format import metric_text, seconds_text
from garnish.training.saved_facts import RunState
from garnish.training.thinned_curves import ThinnedCurves

#: The page, and the folders that it shows, in that of the run.
PAGE, SHEETS, DETAILS = "index.html", "sheets", "details"
#: Sheets that the page shows, of the newest evaluations; the folder holds all.
_MOST_SHEETS = 24
#: Rows of a table whose picture fits beside others.
_NARROW = 16


@final
@dataclass(frozen=True, kw_only=True)
class AboutRun:
    """What does not change while a run goes on.

    Attributes:
        folder: of the run, as it was given.
        total: its steps.
        headlines: evaluated task → name of its headline metric.
        losses: names of the trained tasks.
        model: a description of some lines.
        recipe: as YAML.
        data: words behind ``--data``; None: it is more than can be said in words.
        by_command: whether the recipe names its data, so that ``garnish train --resume`` finds them.
    """

    folder: Path
    total: int
    headlines: Mapping[str, str]
    losses: Sequence[str]
    model: str
    recipe: str
    data: Sequence[str] | None
    by_command: bool


@final
@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A detail on the page: its drawing, else its picture, else its table."""

    title: str
    csv: str
    svg: Markup | None
    picture: str | None
    size: int
    head: list[str]
    rows: list[list[str]]

    @property
    def wide(self) -> bool:
        return self.picture is not None and self.size > _NARROW


class _Task(NamedTuple):
    name: str
    values: list[tuple[str, str]]
    details: list[_Shown]


def run_page(
    about: AboutRun,
    state: RunState,
    curves: ThinnedCurves,
    details: Mapping[str, Sequence[Detail]],
    *,
    warnings: Sequence[str],
    shown: Sequence[str],
    now: str,
) -> str:
    """The page as HTML.

    Args:
        about: the run.
        state: how far it is.
        curves: its scalars so far.
        details: of the best step, by task; their files are in the folder.
        warnings: all so far.
        shown: names of the pictures of the sheets, where they are known.
        now: date and time.
    """
    found = state.metrics_of(state.best_step)
    best = {name: found[name] for name in about.headlines if name in found}  # which a checkpoint has sorted by name
    tasks = [_Task(name, _values(name, best, about, details), _details(name, details)) for name in best]
    rows = [(name, about.headlines.get(name, ""), best[name].get(about.headlines.get(name, ""))) for name in best]
    made = html_page(
        _own("run_page.html"),
        styles=[asset("theme.css"), asset("report.css"), _own("run_page.css")],
        scripts=[asset("theme.js")],
        pictures="beside",
        name=about.folder.name or str(about.folder),
        state=_sentence(about, state),
        headlines=[(name, metric, _number(value)) for name, metric, value in rows if value is not None],
        written=f"Trained for {seconds_text(state.seconds)}; page of {now}.",
        curves=_curves(about, state, curves),
        metrics=tasks,
        untold="" if details or not best else "What else the tasks tell of this step is not in the folder.",
        sheets=_sheets(about, state),
        shown=", ".join(shown),
        warnings=list(warnings),
        commands=_commands(about, state),
        data_is_open=about.data is None,
        model=about.model,
        recipe=about.recipe,
    )
    return shown_page(made)


@cache
def _own(name: str) -> str:
    return resources.files("garnish.training").joinpath(name).read_text("utf-8")


def _sentence(about: AboutRun, state: RunState) -> str:
    """How far the run is, in a sentence."""
    done = {"": f"Step {state.step:,} of {about.total:,}", "finished": f"Finished after {state.step:,} steps"}.get(
        state.stopped, f"Ended early, after {state.step:,} of {about.total:,} steps"
    )
    return done + (f"; best at step {state.best_step:,}." if state.best_step is not None else ".")


def _number(value: float) -> str:
    return metric_text(value) if math.isfinite(value) else "–"


def _values(
    name: str, best: Mapping[str, Mapping[str, float]], about: AboutRun, details: Mapping[str, Sequence[Detail]]
) -> list[tuple[str, str]]:
    """The metrics of a task, its headline first; those of single classes are left to the details, if there are any."""
    first = about.headlines.get(name)
    told = sorted(best[name].items(), key=lambda entry: entry[0] != first)
    return [(metric, _number(value)) for metric, value in told if "/" not in metric or name not in details]


def _details(name: str, details: Mapping[str, Sequence[Detail]]) -> list[_Shown]:
    found = []
    for detail in details.get(name, ()):
        svg = detail.chart()
        # whether there is a picture is asked of its file's name alone: drawing it again would take long
        drawn = svg is None and type(detail).picture is not Detail.picture
        head, *rows = shown_rows(detail.rows())
        place = f"{DETAILS}/{name}_{detail.name}"
        picture = f"{place}.png" if drawn else None
        found.append(
            _Shown(
                title=detail.title, csv=f"{place}.csv", svg=svg, picture=picture, size=len(rows), head=head, rows=rows
            )
        )
    return found


def _curves(about: AboutRun, state: RunState, curves: ThinnedCurves) -> list[tuple[str, str, Markup]]:
    """(title, what is drawn, SVG) of losses, headline metrics and learning rate."""
    wanted = [("loss", "all tasks, weighted", curves.of("loss"))]
    if len(about.losses) > 1:
        wanted += [(f"loss of {task}", "", curves.of(f"loss/{task}")) for task in about.losses]
    for task, metric in about.headlines.items():
        points = [(float(e["step"]), e["metrics"].get(task, {}).get(metric, math.nan)) for e in state.history]
        wanted.append((task, f"{metric} on validation pictures", points))
    rates = curves.of("lr")
    wanted.append(("learning rate", f"up to {max(y for _, y in rates):.3g}" if rates else "", rates))
    found = []
    for title, told, points in wanted:
        svg = line_chart({title: points}, f"{title} over steps", unit="steps")
        if svg is not None:
            found.append((title, told, svg))
    return found


def _sheets(about: AboutRun, state: RunState) -> list[tuple[str, str, str]]:
    """(step, file, headline metrics) of the newest sheets."""
    found: list[tuple[str, str, str]] = []
    for entry in reversed(state.history):
        place = sheet_place(entry["step"])
        if len(found) < _MOST_SHEETS and (about.folder / place).is_file():
            told = [
                f"{task} {metric} {_number(entry['metrics'][task][metric])}"
                for task, metric in about.headlines.items()
                if metric in entry["metrics"].get(task, {})
            ]
            found.append((f"{entry['step']:,}", place, ", ".join(told)))
    return found


def sheet_place(step: int) -> str:
    """The sheet of an evaluation, in the folder of its run."""
    return f"{SHEETS}/step_{step:06d}.jpg"


def _commands(about: AboutRun, state: RunState) -> list[str]:
    best, folder = shlex.quote(str(about.folder / "best")), shlex.quote(str(about.folder))
    data = "DATA" if about.data is None else shlex.join(about.data)
    again = f"garnish train --resume {folder}" if about.by_command else f"fit(…, resume={str(about.folder)!r})"
    found = [] if state.stopped else [again]
    if state.best_step is not None or state.stopped:
        found += [f"garnish predict {best} PICTURE --out maps", f"garnish eval {best} --data {data} --split val"]
    return found


def command_words(data: Json) -> list[str] | None:
    """A recipe's section ``data`` as words behind ``--data``; None if it is more than names and numbers."""
    if isinstance(data, str):
        return [data]
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        return None
    rest = {key: value for key, value in data.items() if key != "name"}
    if any(isinstance(value, bool) or not isinstance(value, str | int | float) for value in rest.values()):
        return None
    return [str(data["name"]), *(word for key, value in rest.items() for word in (f"--data.{key}", str(value)))]
