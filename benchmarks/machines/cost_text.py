"""The report of the cost model as plain tables, and its assumptions as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cost_assumptions import Assumptions

HOUR = 3600.0
#: divisors and names of what is shown, largest first, by unit
SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((HOUR, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")),
    "B/s": ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1, "B/s")),
    "1/s": ((1, "/s"),),
    "1": ((1, ""),),
}


def shown(value: float | None, unit: str) -> str:
    """A number of three digits with a unit that suits it."""
    if value is None:
        return "not measured"
    scales = SCALES.get(unit, ((1, unit),))
    if value == 0:
        return "0"
    if unit == "$":
        return f"${digits(value)}"
    divisor, name = next(((d, n) for d, n in scales if abs(value) >= d), scales[-1])
    return f"{digits(value / divisor)} {name}".strip()


def digits(value: float) -> str:
    """Three digits at least, thousands apart; what is tiny or beyond 10⁹ by powers of ten."""
    if 100 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e9 else f"{value:.4e}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns, the first left, the others right."""
    widths = [max(len(line[n]) for line in (head, *rows)) for n in range(len(head))]
    lines = []
    for line in (head, *rows):
        cells = [line[0].ljust(widths[0]), *(one.rjust(width) for one, width in zip(line[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def side_by_side(columns: dict[str, dict[str, dict[str, Any]]], title: str) -> list[str]:
    """Rows of several columns, and below them the notes that differ from nothing."""
    names = list(next(iter(columns.values())))
    rows = [
        [name, *(shown(column[name]["value"], column[name]["unit"]) for column in columns.values())]
        for name in names
        if name != "what binds"
    ]
    if "what binds" in names:
        rows.append(["what binds", *(column["what binds"]["note"].partition(";")[0] for column in columns.values())])
    return [*table([title, *columns], rows), *notes(columns.values())]


def notes(columns: Iterable[dict[str, dict[str, Any]]]) -> list[str]:
    """What is left out of the rows above, each once."""
    missing, other = set(), set()
    for column in columns:
        for name, one in column.items():
            if name == "what binds":
                continue
            if one["value"] is None:
                missing.add(one["note"].removeprefix("not measured: "))
            elif one["note"]:
                other.add(f"  {name}: {one['note']}")
    first = [f"  not measured: {', '.join(sorted(missing))} (--set gives a value)"] if missing else []
    return [*first, *sorted(other)]


def text(found: dict[str, Any], most: int) -> str:
    """The whole report."""
    s = found["scenario"]
    lines = [
        f"{s['tenants']:,} tenants, {s['pictures']:,} pictures of {s['side']}², {s['tasks']} tasks a bundle, "
        f"{s['devices']:,} devices ({found['assumptions']['device']}), adapters: {found['method']}",
    ]
    if found["assumptions"]["device"] == "cpu":
        lines.append("a device is one thread of the machine that was measured; no accelerator was")
    for count, kinds in found["bulk"].items():
        columns = {"bundles on one trunk": kinds["bundle"], "a copy a tenant": kinds["copy"]}
        lines += ["", *side_by_side(columns, f"BULK, {int(count):,} asked of each picture")]
        if int(count) > most:
            lines.append(f"  up to {most} in one pass were measured; beyond it the line is drawn on")
    counts = list(found["bulk"])
    head = ["SHARING: over copies", *(f"passes, {int(n):,}" for n in counts), *(f"time, {int(n):,}" for n in counts)]
    rows = [
        [method, *(ratio(of[n]["passes"]) for n in counts), *(ratio(of[n]["time"]) for n in counts)]
        for method, of in found["sharing"].items()
    ]
    lines += ["", *table(head, rows)]
    lines += ["", *side_by_side({"": found["sweep"]}, f"SWEEP, {s['runs']:,} runs")]
    for name, kinds in found["fleet"].items():
        columns = {"bundles on one trunk": kinds["bundle"], "a copy a tenant": kinds["copy"]}
        lines += ["", *side_by_side(columns, f"SERVING, {s['rate']:g} requests a second, {name}")]
    for name, one in found.get("simulated", {}).items():
        said = f"{one['said']:.4f} by the approximation, {one['counted']:.4f} counted"
        lines.append(f"hits, {name}, room for {one['room']:,}: {said}")
    return "\n".join(lines)


def ratio(value: float | None) -> str:
    """Of bundles over copies."""
    return "not measured" if value is None else f"{value:.3f}"


def assumption_rows(a: Assumptions) -> list[list[str]]:
    """Name, value, unit, meaning and source of each."""
    return [
        [name, "–" if one["value"] is None else f"{one['value']:.4g}", one["unit"], one["meaning"], one["source"]]
        for name, one in a.to_json()["numbers"].items()
    ]


def assumption_table(a: Assumptions) -> str:
    """All of them, a block each."""
    blocks = []
    for name, value, unit, meaning, source in assumption_rows(a):
        blocks.append(f"{name} = {value}{'' if unit == '1' else ' ' + unit}\n    {meaning}\n    {source}")
    return "\n".join(blocks)
