"""Curves of a run's scalars in bounded memory, however long it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

#: Points of a curve after which every second one is left out.
_MOST = 1024


@final
class ThinnedCurves:
    """Name → (step, value) of scalars; evenly thinned where a run is long, the last step kept."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._last: tuple[int, dict[str, float]] | None = None
        self._every, self._count = 1, 0

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of a step, which must be later than those before."""
        self._last = (step, dict(values))
        if self._count % self._every == 0:
            self._rows.append(self._last)
        self._count += 1
        if len(self._rows) > _MOST:
            self._rows = self._rows[::2]
            self._every *= 2

    def of(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of one scalar, where it was recorded."""
        rows = self._rows if self._last is None or self._last in self._rows[-1:] else [*self._rows, self._last]
        return [(step, values[name]) for step, values in rows if name in values]
