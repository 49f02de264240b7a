"""Callbacks and logger objects of fit: what they are told and when, stopping, errors, and that they leave no trace."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from lightning.fabric.loggers import CSVLogger

import garnish as gn
from garnish.errors import GarnishError, OptionError
from garnish.files.strict_yaml import read_yaml
from garnish.training.called_back import CalledBack
from garnish.training.given_loggers import names_and_loggers
from garnish.training.scalars import read_rows
from training_cases import QUIET, Blobs, every, tensors_of, tiny

SHORT = QUIET | {"steps": 4, "batch_size": 2, "eval_every": 2, "log_every": 2, "check_pictures": 0, "head_lr": 2e-3}


class Told(gn.Callback):
    """Keeps what it is told; ``at``: (moment, step) → what it raises there."""

    def __init__(self, at=None):
        self.at, self.seen = at or {}, []

    def _take(self, kind, now):
        self.seen.append((kind, now.step, now))
        if (kind, now.step) in self.at:
            raise self.at[kind, now.step]

    def on_start(self, now):
        self._take("start", now)

    def on_step(self, now):
        self._take("step", now)

    def on_evaluation(self, now):
        self._take("evaluation", now)

    def on_end(self, now):
        self._take("end", now)

    def order(self):
        return [f"{kind} {step}" for kind, step, _ in self.seen]


class Rows:
    """A logger of one's own, with nothing but the two methods."""

    def __init__(self):
        self.rows, self.ends = [], []

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))

    def finalize(self, status):
        self.ends.append(status)


def run(out=None, resume=None, val=True, **given):
    model = tiny()
    return model, gn.fit(
        model, Blobs(every(4)), Blobs(every(2), seed=1) if val else None, out=out, resume=resume, **SHORT | given
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without callbacks."""
    return run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The same run with two callbacks and two loggers."""
    folder = tmp_path_factory.mktemp("watched")
    told, rows, theirs = [Told(), Told()], Rows(), CSVLogger(folder / "theirs", name="mine")
    return *run(folder / "run", callbacks=told, log=["csv", rows, theirs]), told, rows, folder


def test_moments_come_in_order(watched):
    _, result, told, _, _ = watched
    steps = ["start 0", "step 1", "step 2", "evaluation 2", "step 3", "step 4", "evaluation 4", "end 4"]
    assert told[0].order() == told[1].order() == steps
    by = {f"{kind} {step}": now for kind, step, now in told[0].seen}
    start, end = by["start 0"], by["end 4"]
    assert math.isnan(start.loss) and not (start.losses or start.rates or start.metrics or start.is_best)
    assert (end.stopped, end.out, end.total_steps) == ("finished", result.out, 4) and not by["step 4"].stopped
    assert [by[f"evaluation {e['step']}"].metrics for e in result.history] == [e["metrics"] for e in result.history]
    assert by[f"evaluation {result.best_step}"].is_best and by["step 3"].metrics == result.history[0]["metrics"]
    assert by["step 1"].loss == pytest.approx(sum(by["step 1"].losses.values()))
    assert by["step 1"].rates == {"lr": 1e-3, "head_lr": 2e-3} and by["step 4"].rates["head_lr"] < 1e-3


def test_a_run_with_callbacks_is_the_run_without(plain, watched):
    for name, tensor in tensors_of(plain[0]).items():
        assert torch.equal(tensor, tensors_of(watched[0])[name]), name
    assert plain[1].history == watched[1].history
    args = [read_yaml(found.out / "args.yaml") for found in (plain[1], watched[1])]
    assert args[0] == args[1] and "callbacks" not in str(args)


def test_objects_get_the_rows_that_names_get(watched):
    _, result, _, rows, folder = watched
    ours = read_rows(result.out / "log" / "scalars.csv")
    steps = [(step, row) for step, row in rows.rows if "loss" in row]
    assert [step for step, _ in steps] == [int(row["step"]) for row in ours] == [2, 4]
    for (_, row), text in zip(steps, ours, strict=True):
        assert row == {k: pytest.approx(float(v), rel=1e-6) for k, v in text.items() if k != "step"}
    measured = {step: row["val/seg/miou"] for step, row in rows.rows if "val/seg/miou" in row}
    assert measured == {e["step"]: e["metrics"]["seg"]["miou"] for e in result.history}
    assert rows.ends == ["success"]
    (file,) = (folder / "theirs").rglob("metrics.csv")
    with file.open(newline="") as stream:
        theirs = [row for row in csv.DictReader(stream) if row["loss"]]
    assert [float(row["loss"]) for row in theirs] == [pytest.approx(row["loss"]) for _, row in steps]


def test_objects_log_without_a_folder(capsys):
    rows = Rows()
    result = run(val=False, log=[rows], steps=2, eval_every=None, progress=True)[1]
    assert [step for step, _ in rows.rows] == [2] and rows.ends == ["success"]
    assert not any("log_every" in line for line in result.warnings)


@pytest.mark.parametrize("kind", ["step", "evaluation"])
def test_a_callback_ends_the_run_and_resuming_goes_on(plain, tmp_path, kind):
    first, second = Told({(kind, 2): gn.StopTraining("enough")}), Told()
    _, result = run(tmp_path / "run", callbacks=[first, second])
    assert (result.stopped, result.steps, result.best_step) == ("callback", 2, 2)
    assert first.order() == second.order() == ["start 0", "step 1", "step 2", "evaluation 2", "end 2"]
    assert second.seen[-1][2].stopped == "callback" and (tmp_path / "run" / "best" / "bundle.json").exists()
    model, resumed = run(resume=tmp_path / "run")  # without any
    assert (resumed.stopped, resumed.steps) == ("finished", 4) and resumed.history == plain[1].history
    for name, tensor in tensors_of(plain[0]).items():
        assert torch.equal(tensor, tensors_of(model)[name]), name


def test_the_last_step_is_evaluated_wherever_the_run_ends(tmp_path):
    assert run(tmp_path / "a", callbacks=[Told({("step", 3): gn.StopTraining()})])[1].best_step in (2, 3)
    result = run(callbacks=[Told({("start", 0): gn.StopTraining()})])[1]
    assert [e["step"] for e in result.history] == [1] and (result.steps, result.stopped) == (1, "callback")
    result = run(tmp_path / "b", val=False, eval_every=None, callbacks=[Told({("step", 1): gn.StopTraining()})])[1]
    assert result.stopped == "callback" and (result.out / "best" / "bundle.json").exists()
    assert run(callbacks=[Told({("step", 4): gn.StopTraining()})])[1].stopped == "finished"


def test_an_error_ends_the_run_and_keeps_the_checkpoint(plain, tmp_path):
    broken, rows = Told({("step", 3): KeyError("mine")}), Rows()
    with pytest.raises(KeyError, match="mine"):
        run(tmp_path / "run", callbacks=[broken], log=["csv", rows])
    assert broken.order()[-1] == "step 3" and rows.ends == ["aborted"]
    model, resumed = run(resume=tmp_path / "run")
    assert resumed.stopped == "finished" and resumed.history == plain[1].history
    for name, tensor in tensors_of(plain[0]).items():
        assert torch.equal(tensor, tensors_of(model)[name]), name


def test_what_a_callback_changes_is_trained_on(plain):
    class Zero(gn.Callback):
        def on_step(self, now):
            if now.step == 2:
                with torch.no_grad():
                    for tensor in now.model.head_tensors("seg").values():
                        tensor.zero_()

    model, result = run(callbacks=[Zero()])
    assert result.history[0]["metrics"]["seg"] != plain[1].history[0]["metrics"]["seg"]
    assert not torch.equal(model.head_tensors("seg")[name_of(model)], plain[0].head_tensors("seg")[name_of(model)])


def name_of(model) -> str:
    return next(iter(model.head_tensors("seg")))


def test_one_logger_may_be_named_without_a_list(tmp_path):
    run(log="csv", out=tmp_path)
    assert list(tmp_path.rglob("*.csv"))
    assert names_and_loggers("csv") == names_and_loggers(["csv"]) == (("csv",), [])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"callbacks": Told()}, "callbacks: expected a list of a callback"),
        ({"callbacks": [print]}, "derived from gn.Callback"),
        ({"log": "cvs"}, "train.log: 'cvs'; choose from"),
        ({"log": [Rows]}, "log holds the class Rows; give a name such as 'csv', or a logger object"),
        ({"log": [3]}, "log holds an object of int"),
        ({"log": ["cvs"]}, "train.log: 'cvs'; choose from"),
    ],
)
def test_what_is_no_callback_or_logger(given, said):
    with pytest.raises(OptionError, match=said) as caught:
        run(**given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class Processes:
    """Two processes that take turns: what the first broadcasts, the second gets."""

    world_size = 2

    def __init__(self):
        self.sent = []

    def broadcast(self, value):
        if self.first:
            self.sent.append(value)
            return value
        return self.sent.pop(0)


@pytest.mark.parametrize("raised", [None, gn.StopTraining("enough"), KeyError("mine")])
def test_all_processes_know_what_a_callback_of_the_first_did(raised):
    from types import SimpleNamespace

    from garnish.training.saved_facts import RunState

    fabric, told = Processes(), Told({("start", 0): raised} if raised else None)
    runs = [
        SimpleNamespace(
            fabric=fabric, is_first=first, state=RunState(), model=None, total_steps=4, out=None,
            balance=SimpleNamespace(learnt_weights=dict), progress=SimpleNamespace(speed=0.0, say=lambda line: None),
        )
        for first in (True, False)
    ]  # fmt: skip
    asked, errors = [], []
    for each in runs:
        fabric.first = each.is_first
        called = CalledBack([told], each)
        try:
            called.start()
        except Exception as error:
            errors.append(type(error))
        asked.append(called.asked)
    assert told.order() == ["start 0"]  # of the first alone
    assert asked == [isinstance(raised, gn.StopTraining)] * 2
    assert errors == ([KeyError, GarnishError] if isinstance(raised, KeyError) else [])


def test_without_callbacks_nothing_is_made():
    called = CalledBack([], None)  # which would fail at the first look at the run
    called.start()
    called.step({}, 0.0, 1.0)
    called.evaluation()
    called.end()
    assert not called.asked
