"""Details that are numbers over numbers: measures over a threshold, errors over a distance, pixels over an angle.

Shape letters: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from markupsafe import Markup

from garnish.reporting.detail import Cell, Detail
from garnish.reporting.line_chart import column_chart, line_chart


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep(Detail):
    """Measures at each of some settings, drawn as lines.

    Attributes:
        setting: what is varied, as the first column is called.
        at: N values of it, ascending.
        measures: name → N values, NaN where one is not known; the first three are drawn.
        bounds: lowest and highest value of the drawing; None: those of the values.
    """

    setting: str
    at: Sequence[float]
    measures: Mapping[str, Sequence[float]]
    bounds: tuple[float, float] | None = None

    def rows(self) -> list[list[Cell]]:
        """A row a setting."""
        rows = zip(self.at, *self.measures.values(), strict=True)
        return [[self.setting, *self.measures], *([*map(_cell, row)] for row in rows)]

    def chart(self) -> Markup | None:
        """A line a measure."""
        lines = {name: list(zip(self.at, values, strict=True)) for name, values in self.measures.items()}
        return line_chart(lines, self.title, unit=self.setting, bounds=self.bounds)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Bins(Detail):
    """Numbers of each of some intervals, drawn as columns.

    Attributes:
        quantity: what is divided into intervals, with its unit.
        edges: N + 1 bounds, ascending.
        columns: name → N values, NaN where one is not known; the first is drawn.
        unit: of the quantity.
    """

    quantity: str
    edges: Sequence[float]
    columns: Mapping[str, Sequence[float]]
    unit: str = ""

    def rows(self) -> list[list[Cell]]:
        """A row an interval, with its ends."""
        rows = zip(self.edges[:-1], self.edges[1:], *self.columns.values(), strict=True)
        head: list[Cell] = [f"{self.quantity} from", f"{self.quantity} to", *self.columns]
        return [head, *([*map(_cell, row)] for row in rows)]

    def chart(self) -> Markup | None:
        """A column an interval."""
        return column_chart(self.edges, next(iter(self.columns.values())), self.title, unit=self.unit)


def _cell(value: float) -> Cell:
    return value if isinstance(value, int) else float(value)
