"""``Detail``: what an evaluation found beside a task's metrics, as a table, and drawn.

A task's metric gives them (``garnish.tasks.metrics.totals.Totals.details``); training, ``garnish eval`` and pages show
them without knowing what they are.
"""

from __future__ import annotations

import csv
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image

from garnish.errors import showable
from garnish.reporting.number_format import metric_text

Cell = str | int | float


@dataclass(frozen=True, kw_only=True, eq=False)
class Detail(ABC):
    """One closer look at a task.

    Attributes:
        name: of its files, behind the task's: letters, digits and ``_``.
        title: what it is, in a few words.
    """

    name: str
    title: str

    @abstractmethod
    def rows(self) -> list[list[Cell]]:
        """The table, names of the columns first; NaN where a number is not known."""

    def brief(self) -> list[list[Cell]]:
        """A few lines of the table for a terminal, names of the columns first; empty: it is not told there."""
        return []

    def picture(self) -> Image.Image | None:
        """A picture that is written beside the table; None: there is none."""
        return None

    def chart(self) -> Markup | None:
        """An SVG for a page, in the classes of ``report.css``; None: the page shows picture or table."""
        return None

    def csv(self) -> str:
        """The table as CSV; numbers with six digits, an empty cell where one is not known."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerows([[showable(_written(cell)) for cell in row] for row in self.rows()])
        return text.getvalue()


def _written(cell: Cell) -> str:
    if isinstance(cell, float):
        return "" if math.isnan(cell) else f"{cell:.6g}"
    return str(cell)


def shown_rows(rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """A table for people: three digits behind the point, a dash where a number is not known."""
    return [[_shown(cell) for cell in row] for row in rows]


def _shown(cell: Cell) -> str:
    if isinstance(cell, float):
        return metric_text(cell) if math.isfinite(cell) else "–"
    return f"{cell:,}" if isinstance(cell, int) else cell
