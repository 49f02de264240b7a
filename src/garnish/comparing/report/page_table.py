"""The main table of the report: column groups, rows with marks, cells with JSON pointers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Literal, final

from garnish.comparing.report.results import ArmResult, DeltaM, Difference, Gap, Results, Spread, TaskFacts
from garnish.reporting.number_format import (
    Figure,
    bytes_text,
    count_text,
    figure,
    giga_text,
    metric_text,
    percent_text,
    rate_text,
    ratio_text,
    seconds_text,
    signed_metric_text,
    signed_text,
)

GROUPS = {"adapter": "Adapters", "control": "Controls"}  # all other roles are references
ROLES = {
    "frozen": "heads only, trunk frozen",
    "single": "full fine-tuning, one model a task",
    "multi": "full fine-tuning of all tasks at once",
    "scratch": "random trunk, all of it trained",
}


@final
@dataclass(frozen=True)
class Column:
    """A column: how to get its figure from an arm, the path in the arm's JSON, and the number format.

    ``about`` is the full heading; ``more_is_better`` is None if there is no direction; ``second`` is the line under a
    figure without spread and interval; ``task`` is the task of a quality column.
    """

    group: str
    name: str
    about: str
    more_is_better: bool | None
    of: Callable[[ArmResult], Spread | DeltaM | Gap | float | None]
    path: tuple[str, ...]
    show: Callable[[float], str]
    second: Literal["", "total", "ratio"] = ""
    task: str | None = None

    def value(self, arm: ArmResult) -> float | None:
        """The number of an arm in this column; None if it is missing."""
        found = self.of(arm)
        return found.mean if isinstance(found, Spread | DeltaM | Gap) else found


@final
@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure, one or two figures under it, words instead if it is void, and the tooltip."""

    main: Figure
    under: tuple[Figure, ...] = ()
    before: str = ""
    between: str = ""
    words: str = ""
    about: str = ""
    best: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """The row of an arm."""

    name: str
    role: str
    about: str
    status: str
    reason: str
    marks: tuple[str, ...]
    dominated: bool
    cells: tuple[Cell, ...]


@final
@dataclass(kw_only=True)
class ReportTable:
    """The main table; ``groups``: (heading, number of columns); ``bodies``: heading → rows, by kind of arm."""

    columns: list[Column]
    groups: list[tuple[str, int]] = field(default_factory=list)
    bodies: dict[str, list[ReportRow]] = field(default_factory=dict)


def main_table(results: Results) -> ReportTable:
    """Every arm with its figures; adapters first, then references, then controls."""
    table = ReportTable(columns=_columns(results.tasks))
    for column in table.columns:
        if table.groups and table.groups[-1][0] == column.group:
            table.groups[-1] = (column.group, table.groups[-1][1] + 1)
        else:
            table.groups.append((column.group, 1))
    best = [_best(results.arms, column) for column in table.columns]
    bodies: dict[str, list[ReportRow]] = {"Adapters": [], "References": [], "Controls": []}
    for number, arm in enumerate(results.arms):
        cells = [_cell(arm, number, column) for column in table.columns]
        adapter = arm.role == "adapter"
        marked = tuple(
            replace(c, best=adapter and c.main.value is not None and c.main.value == top)
            for c, top in zip(cells, best, strict=True)
        )
        bodies[GROUPS.get(arm.role, "References")].append(
            ReportRow(
                name=arm.name,
                role=arm.role,
                about=ROLES.get(arm.role, ""),
                status=arm.status,
                reason=arm.reason or "",
                marks=tuple(marks(arm)),
                dominated=arm.dominated,
                cells=marked,
            )
        )
    table.bodies = {name: rows for name, rows in bodies.items() if rows}
    return table


def marks(arm: ArmResult) -> list[str]:
    """Warnings that are shown next to an arm's name."""
    edge = [task for task, own in arm.by_model.items() if own.rate_at_edge]
    short = [task for task, own in arm.by_model.items() if own.flat is False]
    found = []
    if arm.rate_at_edge or edge:
        found.append("rate at the edge of the grid" + (f" ({', '.join(edge)})" if edge else ""))
    if arm.flat is False or short:
        found.append("budget short" + (f" ({', '.join(short)})" if short else ""))
    if arm.trunk == "random" and arm.role != "scratch":
        found.append("random trunk")
    if arm.cached:
        found.append("cached features")
    return found


def methods_text(arm: ArmResult) -> str:
    """Methods with their options, in Python syntax."""
    return " + ".join(f"{m.name}({', '.join(f'{k}={v!r}' for k, v in m.options.items())})" for m in arm.methods)


def rates_text(arm: ArmResult) -> str:
    """The chosen rate, or one per task."""
    chosen = {task: own.rate for task, own in arm.by_model.items() if own.rate is not None}
    if len(set(chosen.values())) > 1:
        return ", ".join(f"{task} {rate_text(value)}" for task, value in chosen.items())
    value = arm.rate if arm.rate is not None else next(iter(chosen.values()), None)
    return "–" if value is None else rate_text(value)


def _columns(tasks: Mapping[str, TaskFacts]) -> list[Column]:
    reference = "mean relative change against full fine-tuning of one model a task"
    delta = ("delta_m", "mean")
    sizes, cost = "Trained parameters", "Cost"
    backward, step = "bytes held for the backward pass", "time of a training step, and over that of the frozen arm"
    return [
        *(_quality(task, about) for task, about in tasks.items()),
        Column("Δm", "mean\n% ↑", reference, True, lambda arm: arm.delta_m, delta, signed_text),
        *(_gap(task) for task in tasks),
        _of_arm(sizes, "encoder\n↓", "trained of the encoder's", False, "encoder_trainable", count_text, "total"),
        _of_arm(sizes, "decoder\n ", "trained of the decoders'", None, "decoder_trainable", count_text),
        _of_arm(cost, "bundle\n↓", "bytes of the bundle on disk", False, "bundle_bytes", bytes_text),
        _of_arm(cost, "GMACs\n↓", "10⁹ multiply-accumulates of one picture", False, "macs", giga_text),
        _of_arm(cost, "backward\n↓", backward, False, "bytes_for_backward", bytes_text),
        _of_arm(cost, "step\n↓", step, False, "step_seconds", seconds_text, "ratio"),
        _of_arm(cost, "training\n↓", "wall time of the chosen run's training", False, "wall_seconds", seconds_text),
    ]


def _quality(task: str, about: TaskFacts) -> Column:
    headline, unit, more = about.headline, about.unit, about.higher_is_better
    name = f"{task}\n{headline}{', ' + unit if unit else ''} {'↑' if more else '↓'}"
    full = f"{headline} of {task}{f' in {unit}' if unit else ''}; {'more' if more else 'less'} is better"

    def of(arm: ArmResult) -> Spread | None:
        return arm.metrics.get(task, {}).get(headline)

    return Column("Quality on test", name, full, more, of, ("metrics", task, headline, "mean"), metric_text, task=task)


def _gap(task: str) -> Column:
    full = f"part of the way from frozen to full fine-tuning that is covered in {task}"
    path = ("gap", task, "mean")
    return Column("Gap recovered", f"{task}\n% ↑", full, True, lambda arm: arm.gap.get(task), path, percent_text)


def _of_arm(
    group: str,
    name: str,
    about: str,
    more_is_better: bool | None,
    field: str,
    show: Callable[[float], str],
    second: Literal["", "total", "ratio"] = "",
) -> Column:
    """A column for a field of the arm."""
    return Column(group, name, about, more_is_better, attrgetter(field), (field,), show, second)


def _cell(arm: ArmResult, number: int, column: Column) -> Cell:
    def shown(value: float | None, *path: str | int, show: Callable[[float], str] = column.show) -> Figure:
        return figure(value, show, "arms", number, *path)

    found, above = column.of(arm), column.path[:-1]
    main = shown(column.value(arm), *column.path)
    if isinstance(found, Gap) and found.void:
        return Cell(main=main, words=found.void)
    under: tuple[Figure, ...] = ()
    if isinstance(found, Spread):
        under = shown(found.least, *above, "least"), shown(found.most, *above, "most")
    elif isinstance(found, DeltaM | Gap):
        ends = found.interval or (None, None)
        under = tuple(shown(end, *above, "interval", place) for place, end in enumerate(ends))
    elif column.second == "total" and not (main.value or 0) > (arm.encoder_total or 0):
        under = (shown(arm.encoder_total, "encoder_total", show=count_text),)
    elif column.second == "ratio":
        under = (shown(arm.step_ratio, "step_ratio", show=ratio_text),)
    if main.value is None or any(f.value is None for f in under):
        under = ()
    before = "of " if column.second == "total" else ""
    is_range = not isinstance(found, DeltaM | Gap) and not any((f.value or 0) < 0 for f in under)
    about = "" if column.task is None else _difference(arm.difference.get(column.task))
    return Cell(main=main, under=under, before=before, between="–" if is_range else " to ", about=about)


def _difference(found: Difference | None) -> str:
    """The difference to full fine-tuning as text, for the tooltips of quality cells."""
    if found is None:
        return ""
    ends = found.interval
    span = "" if ends is None else f" ({signed_metric_text(ends[0])} to {signed_metric_text(ends[1])})"
    return f"{signed_metric_text(found.mean)}{span} against full fine-tuning"


def _best(arms: Sequence[ArmResult], column: Column) -> float | None:
    """Best figure among the adapters, if there are several different ones."""
    values = [value for arm in arms if arm.role == "adapter" and (value := column.value(arm)) is not None]
    if column.more_is_better is None or len(set(values)) < 2:
        return None
    return max(values) if column.more_is_better else min(values)
