"""What a comparison keeps is used only if it can be what is sought; else it is said, and made again."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import garnish as gn
from comparing_cases import trained
from garnish.comparing import live
from garnish.comparing.analysis.totals_by_picture import PictureTotals, load_totals, save_totals
from garnish.comparing.arms import ArmRun
from garnish.comparing.outcomes import Counts, Failed, Measured, StepTime
from garnish.comparing.store import Store, has_picture, keep_json, keep_picture, kept, kept_json
from garnish.comparing.test_scores import known_measure
from garnish.comparing.typed_json import as_json
from garnish.errors import BundleError

KEY = "a" * 64
RUN = ArmRun("LoRA", ("seg",), 1e-3, 0)
TASKS = {"seg": gn.Semantic(classes=3)}


def stored(tmp_path, **changes: Any) -> Store:
    """A store whose result has other entries, and a digest that fits them."""
    store = Store(tmp_path)
    found = as_json(trained([(1, 0.25), (3, 0.5)], RUN))
    assert store.outcome(KEY, RUN) is None
    keep_json(store.run(KEY) / "result.json", found)
    assert as_json(store.outcome(KEY, RUN)) == found
    keep_json(store.run(KEY) / "result.json", {**found, **changes})
    return store


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"history": []}, "its best step, 3, is not the best of its evaluations"),
        ({"best_step": None}, "its best step, None, is not the best"),
        ({"best_step": 1}, "its best step, 1, is not the best"),
        ({"best_step": 10**18}, "best_step: expected a whole number from 0"),
        ({"steps": 2}, "no run has such an evaluation at step 3"),
        ({"steps": -1}, "steps: expected a whole number from 0"),
        ({"seconds": -1.0}, "seconds: expected a number from 0"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1"),
        (
            {"run": as_json(ArmRun("LoRA", ("depth",), 1e-3, 0))},
            "it is of another run (LoRA, depth, rate 0.001, seed 0)",
        ),
        ({"run": as_json(ArmRun("LoRA", ("seg",), 3e-3, 0))}, "it is of another run"),
        ({"run": {}}, "run.arm is missing"),
        ({"history": [{"step": 3, "score": 0.5, "metrics": {"depth": {}}}]}, "no run has such an evaluation at step 3"),
        ({"history": [{"step": 3, "score": "a", "metrics": {}}]}, "history"),
        ({"history": {}}, "history: expected"),
        ({"warnings": "no list"}, "warnings: expected"),
        ({"surprise": 1}, "surprise is unknown"),
    ],
)
def test_a_strange_result_is_said_and_made_again(tmp_path, caplog, changes, told):
    store = stored(tmp_path, **changes)
    with caplog.at_level(logging.WARNING):
        assert store.outcome(KEY, RUN) is None
    (line,) = caplog.messages
    assert told in line and "result.json" in line and line.endswith("it is made again") and "\n" not in line


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31mred", "x" * 3000, 7])
def test_a_reason_is_a_line(tmp_path, caplog, reason):
    store = Store(tmp_path)
    keep_json(store.run(KEY) / "failed.json", {"status": "failed", "reason": reason})
    assert store.outcome(KEY, RUN) is None and "reason: expected one line of text" in caplog.text


def test_an_arm_may_be_called_otherwise(tmp_path):
    store = stored(tmp_path)
    assert store.outcome(KEY, ArmRun("another name", ("seg",), 1e-3, 0)) is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "it is no mapping"),
        ("[" * 10**5, "it is nested too deeply"),
        ('{"status": "failed", "status": "done"}', "key 'status' stands twice"),
        ('{"seconds": NaN}', "NaN is not JSON"),
        ('{"seconds": 1e999}', "1e999 is beyond all floats"),
        ('{"seconds": ' + "9" * 5000 + "}", "integer string conversion"),
        ("{", "Expecting"),
    ],
)
def test_json_that_is_none_is_said(tmp_path, caplog, text, told):
    file = tmp_path / "result.json"
    file.write_text(text)
    assert kept_json(file) is None and told in caplog.text and "it is made again" in caplog.text


def test_files_that_are_none(tmp_path, caplog):
    for name in ("pipe", "pipe.sha256"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**37)
    for name in ("pipe", "folder", "large"):
        caplog.clear()
        assert kept_json(tmp_path / name) is None and "it is made again" in caplog.text
        assert not has_picture(tmp_path / name)
    caplog.clear()
    assert kept_json(tmp_path / "none") is None and not has_picture(tmp_path / "none") and not caplog.messages
    keep_json(tmp_path / "pipe", Failed(reason="x"))  # takes its place
    assert kept(Failed, tmp_path / "pipe") == Failed(reason="x")
    keep_picture(tmp_path / "large", b"1")
    assert has_picture(tmp_path / "large")


@pytest.mark.parametrize(
    "odd", [{"macs": -1}, {"macs": 10**30}, {"macs": 1.5}, {"macs_size": [1]}, {"macs_size": "11"}]
)
def test_costs_that_no_model_has(tmp_path, odd):
    whole = dict.fromkeys(("encoder_total", "encoder_trainable", "decoder_trainable"), 1)
    whole |= {"bundle_bytes": 1, "macs": 2, "macs_size": [3, 4], "bytes_for_backward": 5}
    keep_json(tmp_path / "cost", whole)
    assert kept(Counts, tmp_path / "cost") is not None
    keep_json(tmp_path / "cost", {**whole, **odd})
    assert kept(Counts, tmp_path / "cost") is None
    keep_json(tmp_path / "time", {"step_seconds": -1.0, "step_ratio": None})
    assert kept(StepTime, tmp_path / "time") is None


# ---- measurements -----------------------------------------------------------------------------------------------

TOTALS = PictureTotals(("a", "b"), {"matrix": torch.arange(18).reshape(2, 3, 3), "thin": torch.zeros(2, 4).long()})


def conditions(store: Store) -> Any:
    parts = SimpleNamespace(test=lambda tasks: [0, 1])
    return SimpleNamespace(store=store, measure_key=lambda run: KEY, parts=parts, tasks=TASKS)


def changed_states(**states: torch.Tensor) -> PictureTotals:
    return PictureTotals(TOTALS.pictures, {**TOTALS.states, **states})


@pytest.mark.parametrize(
    "totals",
    [
        {},
        {"depth": TOTALS},
        {"seg": TOTALS, "depth": TOTALS},
        {"seg": None},
        {"seg": PictureTotals(("a",), {name: state[:1] for name, state in TOTALS.states.items()})},
        {"seg": PictureTotals(TOTALS.pictures, {"matrix": TOTALS.states["matrix"]})},
        {"seg": changed_states(matrix=torch.zeros(2, 4, 4).long())},
        {"seg": changed_states(matrix=torch.zeros(2, 3, 3))},
        {"seg": changed_states(more=torch.zeros(2))},
    ],
)
def test_totals_of_something_else_are_measured_again(tmp_path, caplog, totals):
    given = conditions(Store(tmp_path))
    place = given.store.measure(KEY)
    keep_json(place.with_suffix(".json"), Measured(metrics={"seg": {"miou": 0.5}}, num_pictures=2))
    save_totals(place.with_suffix(".safetensors"), {"seg": TOTALS})
    assert known_measure(given, RUN) is not None
    save_totals(place.with_suffix(".safetensors"), totals)
    assert known_measure(given, RUN) is None
    assert "totals of other tasks, metrics or pictures" in caplog.text and "is measured again" in caplog.text


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({"metrics": {}}, "it has no headline of seg"),
        ({"metrics": {"seg": {}}}, "it has no headline of seg"),
        ({"metrics": {"depth": {"miou": 0.5}}}, "it has no headline of seg"),
        ({"metrics": {"seg": {"miou": "0.5"}}}, "metrics.seg.miou: expected"),
        ({"metrics": [1]}, "metrics: expected"),
        ({"num_pictures": 3}, "it is of 3 pictures, not 2"),
    ],
)
def test_a_measurement_without_its_figures_is_made_again(tmp_path, caplog, measured, told):
    """Else the report has "–" where there is a figure."""
    given = conditions(Store(tmp_path))
    place = given.store.measure(KEY)
    save_totals(place.with_suffix(".safetensors"), {"seg": TOTALS})
    whole = {"status": "done", "metrics": {"seg": {"miou": None}}, "num_pictures": 2}
    keep_json(place.with_suffix(".json"), whole)
    assert known_measure(given, RUN) is not None, "a metric may be not finite"
    keep_json(place.with_suffix(".json"), {**whole, **measured})
    assert known_measure(given, RUN) is None and told in caplog.text


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"format": 2, "tasks": []}, "holds no totals by picture of format 1"),
        ({"format": 1}, "has no tasks"),
        ({"format": 1, "tasks": {"seg": 1}}, "tasks: expected a list of mappings"),
        ({"format": 1, "tasks": [{"name": 3}]}, r"tasks\[0\]\.name: expected str"),
        (
            {"format": 1, "tasks": [{"name": "seg", "states": ["x"], "pictures": []}]},
            "of other tasks, metrics or pictures",
        ),
    ],
)
def test_facts_of_totals(tmp_path, facts, told):
    from garnish.bundles.checkpoint import save_state

    with pytest.raises(BundleError, match=told):
        load_totals(save_state(tmp_path / "t", {}, facts))


# ---- what the live table reads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("step,score\n1,0.5\n2,-0.25\n", "1.649"),
        ("step,score\n1,text\n", ""),
        ("step,score\n1,1e308\n", "1.014e+304"),
        ("step,score\n1,nan\n2,inf\n", ""),
        ("step,score\n1," + "9" * 200_000 + "\n", ""),
        ("other\n1\n", ""),
        (None, ""),
    ],
)
def test_the_live_table_shows_what_can_be_read(tmp_path, text, shown):
    if text is not None:
        (tmp_path / "results.csv").write_text(text)
    os.mkfifo(tmp_path / "log")
    of = SimpleNamespace(
        store=SimpleNamespace(training=lambda key: tmp_path),
        key=lambda run: KEY,
        training=SimpleNamespace(best_by=None),
    )
    display = SimpleNamespace(plan=SimpleNamespace(conditions=of))
    job = SimpleNamespace(kind="train", run=RUN)
    assert live.Display.peek(display, job) == ("", shown)  # type: ignore[arg-type]
