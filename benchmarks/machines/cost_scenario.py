"""What is asked of the cost model, and how its numbers are held."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cost_assumptions import Assumptions, ImpossibleError, NotMeasuredError, check


@dataclass(frozen=True)
class Scenario:
    """What is asked.

    Attributes:
        tenants: bundles, or copies.
        pictures: to predict in bulk.
        asked: bundles asked of each picture.
        tasks: of each bundle.
        side: pixels a side of every picture.
        devices: that work at once, in bulk and in the sweep.
        block: pictures of one block of a bulk prediction.
        runs: of the sweep.
        rate: requests a second, one picture and one bundle each.
        zipf: exponent of the popularity of bundles; 0: uniform.

    Raises:
        ImpossibleError: a value that cannot be.
    """

    tenants: int = 1000
    pictures: int = 100_000_000
    asked: int = 1
    tasks: int = 2
    side: int = 224
    devices: int = 100
    block: int = 1000
    runs: int = 1000
    rate: float = 100.0
    zipf: float = 1.0

    def __post_init__(self) -> None:
        for name in ("tenants", "pictures", "asked", "tasks", "side", "devices", "block", "runs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ImpossibleError(f"{name}: {value!r} is no whole number")
            check(name, value, least=1, most=1e15)
        check("rate", self.rate, above=True)
        check("zipf", self.zipf, most=10)
        if self.asked > self.tenants:
            raise ImpossibleError(f"asked: {self.asked} bundles of a picture, but there are {self.tenants} tenants")


@dataclass(frozen=True)
class Row:
    """One number, or why there is none.

    Attributes:
        value: in ``unit``; None: not measured.
        unit: of s, B, $ and 1, as that of an assumption.
        note: what is left out, or what was not measured.
    """

    value: float | None
    unit: str
    note: str = ""


Rows = dict[str, Row]


def row(unit: str, value: Callable[[], float], note: str = "") -> Row:
    """A row, which says what was not measured where something was not."""
    try:
        return Row(value(), unit, note)
    except NotMeasuredError as missing:
        return Row(None, unit, f"not measured: {missing}")


def room(a: Assumptions, kind: str) -> int:
    """How many bundles, or copies, are in memory beside one device.

    Raises:
        ImpossibleError: not one.
    """
    each, free = a.need(f"{kind}_memory"), a.need("memory") - a.need("program_memory")
    if free < each:
        held = f"the program ({a.need('program_memory'):g} B) and no {kind} ({each:g} B)"
        raise ImpossibleError(f"memory: {a.need('memory'):g} B hold {held}")
    return math.floor(free / each)


def area(a: Assumptions, side: int) -> float:
    """Pixels of a picture over those that passes were timed with: times are taken to grow with pixels."""
    return (side / a.need("pass_side")) ** 2


def plain(rows: Rows) -> dict[str, Any]:
    """Rows as plain data."""
    return {name: {"value": one.value, "unit": one.unit, "note": one.note} for name, one in rows.items()}
