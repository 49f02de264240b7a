"""results.json as dataclasses: what is read is written again to the letter, and another form is refused in one line."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from comparison_example import example
from garnish.comparing.outcomes import Failed, Measured, StepTime
from garnish.comparing.report.page import page
from garnish.comparing.report.results import Choice, Spread, read_results
from garnish.comparing.report.spreadsheet import csv_text
from garnish.comparing.store import keep_json, kept
from garnish.comparing.typed_json import as_json, from_json
from garnish.errors import OptionError

REPORTS = sorted((Path(__file__).parents[1] / "docs" / "results").glob("*/results.json"))


@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.parent.name)
def test_published_reports_are_read_and_come_out_as_they_are(file: Path) -> None:
    text = file.read_text("utf-8")
    results = read_results(json.loads(text), str(file))
    assert json.dumps(as_json(results), indent=1, ensure_ascii=False) + "\n" == text
    assert page(results, file.parent) == (file.parent / "index.html").read_text("utf-8")
    assert csv_text(results) == (file.parent / "results.csv").read_text("utf-8")


def test_every_entry_of_the_example_is_kept() -> None:
    assert as_json(read_results(example())) == example()
    assert len(REPORTS) == 4


def changed(*path: str | int, value: Any = None, name: str | None = None) -> dict[str, Any]:
    """The example with another value at a place, or with a further entry there, or without the last of the place."""
    results = copy.deepcopy(example())
    at: Any = results
    for step in path[:-1]:
        at = at[step]
    if name is not None:
        at[path[-1]][name] = 1
    elif value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return results


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (changed("protocol"), "Results.protocol is missing"),
        (changed("arms", 0, name="speed"), "Results.arms.speed is unknown"),
        (changed("arms", 0, "role", value="best"), "Results.arms.role: expected one of adapter, frozen"),
        (changed("arms", 0, "delta_m", "mean", value="1.2"), "Results.arms.delta_m.mean: expected float"),
        (
            changed("tasks", "seg", "higher_is_better", value="yes"),
            "Results.tasks.seg.higher_is_better: expected bool, got 'yes'",
        ),
        (changed("format", value="1"), "Results.format: expected 1; got '1'"),
        ({"format": 2, "more": 1}, "has format 2, this garnish reads 1; install the newer one"),
        ([], "Results: expected Results, got []"),
    ],
)
def test_another_form_is_refused(results: Any, words: str) -> None:
    with pytest.raises(OptionError) as error:
        read_results(results, "a.json")
    assert str(error.value).startswith("a.json: ") and words in str(error.value) and "\n" not in str(error.value)


def test_what_json_cannot_hold_and_what_is_left_out() -> None:
    spread = Spread(mean=math.nan, least=-math.inf, most=1.0)
    assert as_json(spread) == {"mean": None, "least": None, "most": 1.0}, "values, None by default, are left out"
    assert as_json([Choice(rate=None, rate_at_edge=False, flat=None)]) == [
        {"rate": None, "rate_at_edge": False, "flat": None}
    ]
    assert from_json(Spread, as_json(spread), "") == Spread(mean=None, least=None, most=1.0)


def test_a_file_of_the_store_that_holds_something_else_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "it.json"
    measured = Measured(metrics={"seg": {"miou": math.nan}}, num_pictures=3)
    keep_json(file, measured)
    assert kept(Measured, file) == Measured(metrics={"seg": {"miou": None}}, num_pictures=3)
    assert kept(Failed, file) is kept(StepTime, file) is None and caplog.text.count("it is made again") == 2
    assert kept(Failed, tmp_path / "none.json") is None
