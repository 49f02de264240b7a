"""``results.csv``: one row per arm, with the figures of results.json at full precision."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

from garnish.comparing.report.results import ArmResult, DeltaM, Difference, Gap, Results, Spread, TaskFacts
from garnish.comparing.typed_json import as_json
from garnish.errors import showable

SCALARS = (
    "name",
    "role",
    "status",
    "reason",
    "trunk",
    "cached",
    "rate",
    "rate_at_edge",
    "flat",
    "encoder_total",
    "encoder_trainable",
    "decoder_trainable",
    "bundle_bytes",
    "macs",
    "bytes_for_backward",
    "step_seconds",
    "step_ratio",
    "wall_seconds",
    "dominated",
)


def row_of(arm: ArmResult, tasks: Mapping[str, TaskFacts]) -> dict[str, str | float | None]:
    """Column → value of an arm's row; a task's columns are named ``task.metric.mean`` and so on."""
    found: dict[str, str | float | None] = {name: getattr(arm, name) for name in SCALARS}
    found["delta_m"], found["delta_m_least"], found["delta_m_most"] = _spread(arm.delta_m)
    found["delta_m_low"], found["delta_m_high"] = _ends(arm.delta_m)
    for task, about in tasks.items():
        name = f"{task}.{about.headline}"
        spread = _spread(arm.metrics.get(task, {}).get(about.headline))
        found[f"{name}.mean"], found[f"{name}.least"], found[f"{name}.most"] = spread
        gap, difference = arm.gap.get(task), arm.difference.get(task)
        for kind, one in (("gap", gap), ("difference", difference)):
            found[f"{task}.{kind}"] = None if one is None else one.mean
            found[f"{task}.{kind}_low"], found[f"{task}.{kind}_high"] = _ends(one)
        found[f"{task}.gap_void"] = None if gap is None else gap.void
    return found


def _spread(one: Spread | DeltaM | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if one is None else (one.mean, one.least, one.most)


def _ends(one: DeltaM | Gap | Difference | None) -> tuple[float | None, float | None]:
    return (None, None) if one is None or one.interval is None else one.interval


def csv_text(results: Results) -> str:
    """The table with a header line; missing values are empty, methods are JSON, numbers have full precision."""
    file = io.StringIO()
    rows = [
        row_of(arm, results.tasks) | {"methods": json.dumps(as_json(arm.methods), ensure_ascii=False)}
        for arm in results.arms
    ]
    writer = csv.writer(file, lineterminator="\n")
    if rows:
        writer.writerow(map(_cell, rows[0]))
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return file.getvalue()


def _cell(value: str | float | None) -> str | float | None:
    """Numbers as they are; text of strangers that a spreadsheet would take for a formula, with a quote before it."""
    if not isinstance(value, str):
        return value
    text = showable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
