"""Printing to standard output: JSON, or tables for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from garnish.registry import plain


def print_json(value: object) -> None:
    """Print strict JSON (NaN becomes null)."""
    print(json.dumps(plain(value, finite=True), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal, or as its content if the output is a file or a pipe."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.show_header = any(columns)
    for number, name in enumerate(columns):
        table.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def console() -> Console:
    """Standard output as a console that does not interpret markup, which may be in user-given names."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = max(found.width, 160)
    return found


def metric_rows(metrics: Mapping[str, Mapping[str, float]], headlines: Mapping[str, str]) -> list[list[str]]:
    """Rows task, metric, value; the headline of a task first, with a star."""
    rows = []
    for task, values in metrics.items():
        first = headlines.get(task)
        for name in sorted(values, key=lambda n: n != first):
            shown = "–" if math.isnan(values[name]) else f"{values[name]:.4g}"
            rows.append([task, f"{name} *" if name == first else name, shown])
    return rows
