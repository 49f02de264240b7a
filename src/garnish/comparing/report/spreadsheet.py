"""The comparison as one row an arm, for spreadsheets: every figure as it stands in results.json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from garnish.comparing.report.number_format import find

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
#: column → where it stands in an arm
DELTA = {
    "delta_m": ("delta_m", "mean"),
    "delta_m_least": ("delta_m", "least"),
    "delta_m_most": ("delta_m", "most"),
    "delta_m_low": ("delta_m", "interval", 0),
    "delta_m_high": ("delta_m", "interval", 1),
}


def columns(results: Mapping[str, Any]) -> dict[str, tuple[str | int, ...]]:
    """Column name → path of its figure inside an arm; a task's columns are named ``task.metric.mean`` and so on."""
    found: dict[str, tuple[str | int, ...]] = {name: (name,) for name in SCALARS} | DELTA
    for task, about in results["tasks"].items():
        headline = about["headline"]
        found |= {f"{task}.{headline}.{part}": ("metrics", task, headline, part) for part in ("mean", "least", "most")}
        for kind in ("gap", "difference"):
            found[f"{task}.{kind}"] = (kind, task, "mean")
            found[f"{task}.{kind}_low"] = (kind, task, "interval", 0)
            found[f"{task}.{kind}_high"] = (kind, task, "interval", 1)
        found[f"{task}.gap_void"] = ("gap", task, "void")
    return found


def csv_text(results: Mapping[str, Any]) -> str:
    """The table with a header line; what is missing is empty, methods are JSON, numbers are written in full."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    paths = columns(results)
    writer.writerow([*paths, "methods"])
    for arm in results["arms"]:
        cells = ["" if (value := find(arm, *path)) is None else value for path in paths.values()]
        writer.writerow([*cells, json.dumps(arm.get("methods") or [], ensure_ascii=False)])
    return file.getvalue()
