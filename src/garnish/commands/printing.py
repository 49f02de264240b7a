"""Printing to standard output: JSON, or tables for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from garnish.errors import showable
from garnish.output import console, say, showable_json
from garnish.registry import plain

#: Rows of a table that are printed.
MOST_ROWS = 2000


def print_json(value: object) -> None:
    """Print strict JSON (NaN becomes null)."""
    text = json.dumps(plain(value, finite=True), indent=2, ensure_ascii=False, allow_nan=False)
    say(*showable_json(text).split("\n"))


def warning_of(binding: Sequence[str]) -> str:
    """The line for what forbids commercial use: the backbone's weights, the training pictures, the bundle itself."""
    if list(binding) == ["the backbone's weights"]:
        return "warning: the backbone's weights are non-commercial, and so is what is trained on them"
    return f"warning: not for commercial use, as the licence of {' and '.join(binding)} says"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal, or as its content if the output is a file or a pipe.

    Of very many rows, which take seconds to lay out, the first :data:`MOST_ROWS` are printed and the others counted.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.show_header = any(columns)
    for number, name in enumerate(columns):
        table.add_column(showable(name), no_wrap=number == 0, overflow="fold")
    for row in rows[:MOST_ROWS]:
        table.add_row(*map(showable, row))
    wide = console()
    if not wide.is_terminal:
        wide.width = max(wide.width, 160)
    wide.print(table)
    if len(rows) > MOST_ROWS:
        say(f"… and {len(rows) - MOST_ROWS:,} more rows; --json prints all")


def metric_rows(metrics: Mapping[str, Mapping[str, float]], headlines: Mapping[str, str]) -> list[list[str]]:
    """Rows task, metric, value; the headline of a task first, with a star."""
    rows = []
    for task, values in metrics.items():
        first = headlines.get(task)
        for name in sorted(values, key=lambda n: n != first):
            shown = "–" if math.isnan(values[name]) else f"{values[name]:.4g}"
            rows.append([task, f"{name} *" if name == first else name, shown])
    return rows
