"""The main table of the report: columns in groups, rows with their marks, cells with their places in the JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from garnish.comparing.report.number_format import (
    Figure,
    count,
    figure,
    find,
    giga,
    metric,
    rate,
    ratio,
    seconds,
    share,
    signed,
    signed_metric,
    size,
)

GROUPS = {"adapter": "Adapters", "control": "Controls"}  # all other roles are references
ROLES = {
    "frozen": "heads only, trunk frozen",
    "single": "full fine-tuning, one model a task",
    "multi": "full fine-tuning of all tasks at once",
    "scratch": "random trunk, all of it trained",
}


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it is in full, and whether more is better (None: neither)."""

    group: str
    name: str
    about: str
    more_is_better: bool | None
    path: tuple[str, ...]
    show: Callable[[float], str]
    second: str = ""  # "range", "interval", "total" or "ratio": what stands under the figure


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure, the two or one under it, words in its place where it is void, and what is said on hovering."""

    main: Figure
    under: tuple[Figure, ...] = ()
    before: str = ""
    between: str = ""
    words: str = ""
    about: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """An arm in the table."""

    name: str
    role: str
    about: str
    status: str
    reason: str
    marks: tuple[str, ...]
    dominated: bool
    cells: tuple[Cell, ...]


@dataclass(kw_only=True)
class ReportTable:
    """``groups``: heading → number of columns; ``bodies``: heading → rows, the references apart from the adapters."""

    columns: list[Column]
    groups: list[tuple[str, int]] = field(default_factory=list)
    bodies: dict[str, list[ReportRow]] = field(default_factory=dict)


def main_table(results: Mapping[str, Any]) -> ReportTable:
    """Every arm with its figures; adapters first, then references, then controls."""
    table = ReportTable(columns=_columns(results["tasks"]))
    for column in table.columns:
        if table.groups and table.groups[-1][0] == column.group:
            table.groups[-1] = (column.group, table.groups[-1][1] + 1)
        else:
            table.groups.append((column.group, 1))
    best = [_best(results["arms"], column) for column in table.columns]
    bodies: dict[str, list[ReportRow]] = {"Adapters": [], "References": [], "Controls": []}
    for number, arm in enumerate(results["arms"]):
        cells = tuple(_cell(results, number, column) for column in table.columns)
        adapter = arm["role"] == "adapter"
        marked = tuple(
            replace(c, best=adapter and c.main.value is not None and c.main.value == top)
            for c, top in zip(cells, best, strict=True)
        )
        bodies[GROUPS.get(arm["role"], "References")].append(
            ReportRow(
                name=str(arm["name"]),
                role=arm["role"],
                about=ROLES.get(arm["role"], ""),
                status=arm["status"],
                reason=str(arm.get("reason") or ""),
                marks=tuple(marks(arm)),
                dominated=bool(arm.get("dominated")),
                cells=marked,
            )
        )
    table.bodies = {name: rows for name, rows in bodies.items() if rows}
    return table


def marks(arm: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside an arm's figures."""
    by_task = arm.get("by_task") or {}
    edge = [task for task, own in by_task.items() if own.get("rate_at_edge")]
    short = [task for task, own in by_task.items() if own.get("flat") is False]
    found = []
    if arm.get("rate_at_edge") or edge:
        found.append("rate at the edge of the grid" + (f" ({', '.join(edge)})" if edge else ""))
    if arm.get("flat") is False or short:
        found.append("budget short" + (f" ({', '.join(short)})" if short else ""))
    if arm.get("trunk") == "random" and arm["role"] != "scratch":
        found.append("random trunk")
    if arm.get("cached"):
        found.append("cached features")
    return found


def methods_text(arm: Mapping[str, Any]) -> str:
    """Methods with their options, as they are written in Python."""
    return " + ".join(
        f"{m['name']}({', '.join(f'{k}={v!r}' for k, v in (m.get('options') or {}).items())})"
        for m in arm.get("methods") or []
    )


def rates_text(arm: Mapping[str, Any]) -> str:
    """The chosen rate, or one a task."""
    by_task = arm.get("by_task") or {}
    chosen = {task: own["rate"] for task, own in by_task.items() if own.get("rate") is not None}
    if len(set(chosen.values())) > 1:
        return ", ".join(f"{task} {rate(value)}" for task, value in chosen.items())
    value = arm.get("rate") if arm.get("rate") is not None else next(iter(chosen.values()), None)
    return "–" if value is None else rate(value)


def _columns(tasks: Mapping[str, Mapping[str, Any]]) -> list[Column]:
    found = [_quality(task, about) for task, about in tasks.items()]
    reference = "mean relative change against full fine-tuning of one model a task"
    found.append(Column("Δm", "mean\n% ↑", reference, True, ("delta_m",), signed, "interval"))
    for task in tasks:
        part = f"part of the way from frozen to full fine-tuning that is covered in {task}"
        found.append(Column("Gap recovered", f"{task}\n% ↑", part, True, ("gap", task), share, "interval"))
    sizes, cost = "Trained parameters", "Cost"
    backward, step = "bytes held for the backward pass", "time of a training step, and over that of the frozen arm"
    return [
        *found,
        Column(sizes, "encoder\n↓", "trained of the encoder's", False, ("encoder_trainable",), count, "total"),
        Column(sizes, "decoder\n ", "trained of the decoders'", None, ("decoder_trainable",), count),
        Column(cost, "bundle\n↓", "bytes of the bundle on disk", False, ("bundle_bytes",), size),
        Column(cost, "GMACs\n↓", "10⁹ multiply-accumulates of one picture", False, ("macs",), giga),
        Column(cost, "backward\n↓", backward, False, ("bytes_for_backward",), size),
        Column(cost, "step\n↓", step, False, ("step_seconds",), seconds, "ratio"),
        Column(cost, "training\n↓", "wall time of the chosen run's training", False, ("wall_seconds",), seconds),
    ]


def _quality(task: str, about: Mapping[str, Any]) -> Column:
    headline, unit, more = about["headline"], about.get("unit") or "", about["higher_is_better"]
    name = f"{task}\n{headline}{', ' + unit if unit else ''} {'↑' if more else '↓'}"
    full = f"{headline} of {task}{f' in {unit}' if unit else ''}; {'more' if more else 'less'} is better"
    group = "Quality on test"
    return Column(group, name, full, more, ("metrics", task, headline), metric, "range")


def _cell(results: Mapping[str, Any], number: int, column: Column) -> Cell:
    at: tuple[str | int, ...] = ("arms", number, *column.path)
    nested = column.second in ("range", "interval")
    main = figure(results, column.show, *at, *(("mean",) if nested else ()))
    words = str(find(results, *at, "void") or "") if column.second == "interval" else ""
    if words:
        return Cell(main=main, words=words)
    pairs = {
        "range": (figure(results, column.show, *at, "least"), figure(results, column.show, *at, "most")),
        "interval": (
            figure(results, column.show, *at, "interval", 0),
            figure(results, column.show, *at, "interval", 1),
        ),
        "total": (figure(results, count, "arms", number, "encoder_total"),),
        "ratio": (figure(results, ratio, "arms", number, "step_ratio"),),
    }
    under = pairs.get(column.second, ())
    if main.value is None or any(f.value is None for f in under):
        under = ()
    if column.second == "total" and under and (main.value or 0) > (under[0].value or 0):
        under = ()  # one model a task trains more than one encoder holds
    before = "of " if column.second == "total" else ""
    between = " to " if column.second == "interval" or any((f.value or 0) < 0 for f in under) else "–"
    return Cell(main=main, under=under, before=before, between=between, about=_difference(results, number, column))


def _difference(results: Mapping[str, Any], number: int, column: Column) -> str:
    """The headline against full fine-tuning, for the cells of quality."""
    found = find(results, "arms", number, "difference", column.path[1]) if column.second == "range" else None
    mean = find(found, "mean")
    if mean is None:
        return ""
    low, high = find(found, "interval", 0), find(found, "interval", 1)
    span = "" if low is None or high is None else f" ({signed_metric(low)} to {signed_metric(high)})"
    return f"{signed_metric(mean)}{span} against full fine-tuning"


def _best(arms: Sequence[Mapping[str, Any]], column: Column) -> float | None:
    """Best figure among the adapters, where there are several and they differ."""
    nested = column.second in ("range", "interval")
    path = (*column.path, "mean") if nested else column.path
    values = [v for arm in arms if arm["role"] == "adapter" and (v := find(arm, *path)) is not None]
    if column.more_is_better is None or len(set(values)) < 2:
        return None
    best: float = max(values) if column.more_is_better else min(values)
    return best
