"""Checkpoints and logs whose content no run writes are refused in one line; nothing is trained after them."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import garnish as gn
from garnish.bundles import checkpoint
from garnish.bundles.checkpoint import load_state, open_state, save_state
from garnish.errors import BundleError
from garnish.training.run_state import _odd_scaler
from garnish.training.saved_facts import checkpoint_of
from garnish.training.scalars import read_rows
from training_cases import PARTIAL, QUIET, Blobs, every, tiny

OPTIONS = {"steps": 2, "batch_size": 4, "check_pictures": 0, "eval_every": 1, "log_every": 1, **QUIET}
WEIGHT = "heads.seg.projections.0.weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("strange") / "run"
    gn.fit(tiny(), Blobs(PARTIAL), Blobs(every(2), seed=1), out=out, **OPTIONS)
    return out


@pytest.fixture
def copied(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def resume(folder: Path) -> Any:
    return gn.fit(tiny(), Blobs(PARTIAL), Blobs(every(2), seed=1), resume=folder, **OPTIONS)


def changed(folder: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Path:
    """The last state with other content, and a digest that fits it."""
    file = folder / "last/state.safetensors"
    tensors, facts = load_state(file)
    change(facts, tensors)
    save_state(file, tensors, facts)
    return file


def state_with(**entries: Any) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], object]:
    return lambda facts, tensors: facts["state"].update(entries)


EVALUATION = {"step": 1, "score": 0.5, "metrics": {}}
STRANGE: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], object], str]] = {
    "step too large": (state_with(step=10**18), r"state\.step: expected a whole number from 0 to 1,000,"),
    "step beyond the end": (state_with(step=3), r"state\.step is 3, of 2 steps in all"),
    "step negative": (state_with(step=-1), r"state\.step: expected a whole number from 0"),
    "step of text": (state_with(step="2"), r"state\.step: expected a whole number from 0 .*, got '2'"),
    "score nan": (state_with(best_score=math.nan), r"state\.best_score: expected a number or -inf or null, got nan"),
    "score of history": (
        state_with(history=[{**EVALUATION, "score": math.nan}]),
        r"state\.history\[0\]\.score: expected a number or -inf, got nan",
    ),
    "best of none": (state_with(best_step=7), r"state\.best_step is 7 with score .*, which state\.history is not like"),
    "history backwards": (state_with(history=[EVALUATION] * 2), r"state\.history\[1\]\.step is 1, after 1"),
    "history of text": (state_with(history=["a"]), r"state\.history\[0\]: expected a mapping, got 'a'"),
    "history long": (state_with(history=[EVALUATION] * 10**5), r"state\.history\[1\]\.step is 1, after 1"),
    "metrics of lists": (
        state_with(history=[{**EVALUATION, "metrics": {"seg": [1]}}]),
        r"history\[0\]\.metrics\.seg: expected a mapping",
    ),
    "stopped": (
        state_with(stopped="never"),
        r"state\.stopped: expected one of '', finished, early, callback; got 'never'",
    ),
    "seconds": (state_with(seconds=-1), r"state\.seconds: expected a number from 0"),
    "batch size": (lambda f, t: f.update(batch_size=0), r"batch_size: expected a whole number from 1"),
    "world": (lambda f, t: f.update(world=[1]), r"world: expected a whole number from 1"),
    "data": (lambda f, t: f.update(data={"training": [1]}), r"data\.training: expected a mapping"),
    "data empty": (lambda f, t: f["data"].update(training={}), r"was started with other training data \(.*None, now"),
    "no state": (lambda f, t: f.pop("state"), r"has no state; give another folder"),
    "scaler": (lambda f, t: f.update(scaler={"scale": 1.0}), r"scaler\.scale is unknown"),
    "optimizer of another": (
        lambda f, t: f["optimizer"].update(other={}),
        r"optimizer\.other is not of the optimizer of this model",
    ),
    "optimizer's numbers": (
        lambda f, t: f["optimizer"].update({WEIGHT: {"lr": 3.0}}),
        r"optimizer\.heads.* is not of the optimizer of this model",
    ),
    "optimizer forgotten": (lambda f, t: f["optimizer"].pop(WEIGHT), r"is missing, unused or of another shape"),
    "moment of another shape": (
        lambda f, t: t.update({f"optimizer/{WEIGHT}/exp_avg": torch.zeros(3)}),
        r"exp_avg' \(1 such\) is missing, unused or of another shape",
    ),
    "moment of another dtype": (
        lambda f, t: t.update({f"optimizer/{WEIGHT}/exp_avg": t[f"optimizer/{WEIGHT}/exp_avg"].double()}),
        r"exp_avg' \(1 such\) is missing, unused or of another shape",
    ),
    "moment negative": (
        lambda f, t: t[f"optimizer/{WEIGHT}/exp_avg_sq"].sub_(1),
        r"exp_avg_sq holds what no optimizer does",
    ),
    "counter too large": (lambda f, t: t[f"optimizer/{WEIGHT}/step"].add_(9), r"step holds what no optimizer does"),
    "weights of another dtype": (
        lambda f, t: t.update({f"model/{WEIGHT}": t[f"model/{WEIGHT}"].half()}),
        r"\(1 such\) is missing, unused or of another shape",
    ),
}


@pytest.mark.parametrize("name", list(STRANGE))
def test_a_strange_state_is_refused(copied, name):
    change, told = STRANGE[name]
    changed(copied, change)
    before = {file: file.read_bytes() for file in copied.rglob("*.safetensors")}
    with pytest.raises(gn.errors.GarnishError, match=told) as fault:
        resume(copied)
    assert "\n" not in str(fault.value) and len(str(fault.value)) < 600
    assert {file: file.read_bytes() for file in copied.rglob("*.safetensors")} == before


def test_shapes_are_compared_before_tensors_are_read(copied, monkeypatch):
    changed(copied, lambda f, t: t.update({f"model/{WEIGHT}": torch.zeros(3)}))
    monkeypatch.setattr(checkpoint, "safe_open", lambda *given, **more: pytest.fail("it was read"))
    with pytest.raises(BundleError, match="of another shape"):
        resume(copied)


def test_a_run_with_evaluations_that_are_not_finite_goes_on(copied):
    """As of a decoder that overflowed: the score of an evaluation that is not ranked is −∞."""
    history = [{"step": 1, "score": -math.inf, "metrics": {"depth": {"rmse": math.nan, "abs_rel": math.inf}}}]
    file = changed(copied, state_with(step=1, history=history, best_step=None, best_score=None, best_on_some={}))
    facts = checkpoint_of(open_state(file).facts, str(file))
    assert facts["state"].history[0]["score"] == -math.inf
    assert math.isnan(facts["state"].history[0]["metrics"]["depth"]["rmse"])


def test_a_state_larger_than_any_of_the_model_is_not_read(copied):
    file = copied / "last/state.safetensors"
    (copied / "last/earlier.safetensors").unlink()
    header = json.dumps({"a": {"dtype": "U8", "shape": [2**37], "data_offsets": [0, 2**37]}}).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + 2**37)
    with pytest.raises(BundleError, match=r"is damaged \(its 137,.* bytes are more than the .* that such"):
        resume(copied)


def test_facts_that_could_not_be_read_again_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_MOST_FACTS", 100)
    with pytest.raises(BundleError, match=r"have \d{3} characters, more than the 100 .*; evaluate less often"):
        save_state(tmp_path / "s", {}, {"history": list(range(100))})
    assert not list(tmp_path.iterdir())


def test_the_scaler_of_float16_has_its_own_numbers():
    now = {"scale": 65536.0, "growth_factor": 2.0, "growth_interval": 2000, "_growth_tracker": 0}
    assert _odd_scaler(now | {"_growth_tracker": 7}, now) == ""
    for odd in ({"scale": 0.0}, {"scale": -1.0}, {"growth_interval": 0}, {"scale": 1}, {"other": 1.0}):
        assert _odd_scaler(now | odd, now).startswith(f"scaler.{next(iter(odd))} is ")
    assert _odd_scaler({}, now) == "scaler._growth_tracker is missing"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steq,loss\n1,2\n", "it has no column step"),
        ("step,loss\n1,2\n2\n3,4\n", r"row 3: '2'"),
        ("step,loss\n1,2\n²,3\n", r"row 3: '²,3'"),
        ("step,loss\n2,2\n1,3\n", r"row 3: '1,3'"),
        ("step,loss\n" + "9" * 5000 + ",1\n", "row 2: '9999"),
        ("step,loss\n1," + "9" * 200_000 + "\n", "field larger"),
        ("step,step\n1,1\n", "a column twice"),
        ("step,loss\n1,\udcff\n", "decode byte"),
    ],
)
def test_a_damaged_log_is_refused(tmp_path, text, told):
    file = tmp_path / "scalars.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BundleError, match=told) as fault:
        read_rows(file)
    assert str(fault.value).endswith("; move it away, then resume")


def test_only_a_last_row_may_be_cut_off(tmp_path):
    file = tmp_path / "scalars.csv"
    assert read_rows(file) == []
    for cut in ("2,0.", "2", '"', "2,0.5"):
        file.write_text(f"step,loss\r\n1,0.5\r\n{cut}")
        assert read_rows(file) == [{"step": "1", "loss": "0.5"}]
    file.write_text("")
    with pytest.raises(BundleError, match="no column step"):
        read_rows(file)


def test_pipes_are_not_waited_for(copied):
    for name in ("last/state.safetensors", "log/scalars.csv"):
        (copied / name).unlink()
        os.mkfifo(copied / name)
    resumed = resume(copied)  # from the earlier state, and the log begins anew
    assert "no such state file; going on from the state before" in resumed.warnings[0]
