"""Δm of every published row whose figures can be read gives the printed value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from garnish.files.strict_yaml import read_yaml
from garnish.tasks.metrics.delta_m import delta_m

TABLES = read_yaml(Path(__file__).with_name("published_rows.yaml"))
FACTS = Path(__file__).parents[1].parent / "shared/reference/methods.md"
#: Printed to two digits from figures printed to two digits.
WITHIN = 0.02

ROWS = [
    pytest.param(table, source, name, id=f"{table['benchmark'].split(',')[0]}: {name}")
    for table in TABLES
    for source in table["sources"]
    for name in source["rows"]
]


def recomputed(table, row, *, signed: bool = True) -> float:
    tasks = table["tasks"]
    better = {t: not (signed and t in table["lower_is_better"]) for t in tasks}
    return delta_m(dict(zip(tasks, row, strict=True)), dict(zip(tasks, table["reference"], strict=True)), better)


@pytest.mark.parametrize(("table", "source", "name"), ROWS)
def test_delta_m_is_the_printed_one(table, source, name):
    *row, printed = source["rows"][name]
    value = recomputed(table, row)
    if name in (exceptions := source.get("exceptions", {})):
        stated, why = exceptions[name]
        assert value == pytest.approx(stated, abs=WITHIN) and abs(value - printed) > WITHIN and why
        return
    assert value == pytest.approx(printed, abs=WITHIN)
    if row != table["reference"]:
        assert abs(recomputed(table, row, signed=False) - printed) > WITHIN, "the sign of lower-is-better tells"


def test_what_is_held_and_what_is_excepted():
    assert [sum(len(s["rows"]) for s in table["sources"]) for table in TABLES] == [29, 4]
    found = [name for table in TABLES for s in table["sources"] for name in s.get("exceptions", {})]
    assert found == ["multi-task full tuning"]
    assert all(source["source"] for table in TABLES for source in table["sources"])


def number(text: str) -> float | None:
    """A cell's first number, with a printed minus or plus."""
    match = re.match(r"[−+-]?\d*\.?\d+", text.strip())
    return None if match is None else float(match[0].replace("−", "-"))


@pytest.mark.real
@pytest.mark.skipif(not FACTS.is_file(), reason="the collection of published tables is not here")
def test_rows_are_transcribed_right():
    text = FACTS.read_text(encoding="utf-8")
    for table, start, end in zip(TABLES, ("### 5.1", "### 5.2"), ("What differs across", "### 5.3"), strict=True):
        width = len(table["tasks"]) + 1
        section = text[text.index(start) : text.index(end)]
        cells = [line.split("|")[2 : 2 + width] for line in section.splitlines() if line.startswith("|")]
        theirs = [found for row in cells if None not in (found := [number(c) for c in row])]
        assert sorted(theirs) == sorted(row for source in table["sources"] for row in source["rows"].values())
