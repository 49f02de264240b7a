"""Other loggers than CSV and TensorBoard: a real one by its class, one of our own, and mistakes in one line."""

from __future__ import annotations

import csv
import importlib
import importlib.util

import pytest
from lightning.fabric.loggers import Logger

from garnish.errors import GarnishError, MissingExtraError, OptionError
from garnish.training.fit import fit
from garnish.training.loggers import logger_class
from garnish.training.scalars import log_kinds, read_rows
from training_cases import QUIET, Blobs, every, tiny

OPTIONS = {"steps": 4, "batch_size": 2, "eval_every": 2, "log_every": 2, "check_pictures": 0}


class Kept(Logger):
    """Keeps what it is told, and may refuse to start."""

    told: list = []  # noqa: RUF012 (cleared by each test)
    broken = False

    def __init__(self, project: str = "default", save_dir: str = "."):
        if self.broken:
            raise ConnectionError("no server\nat all")
        self.told.append(("made", project, save_dir))

    name = version = property(lambda self: "kept")

    def log_hyperparams(self, params):
        raise NotImplementedError

    def log_metrics(self, metrics, step=None):
        self.told.append((step, metrics))

    def finalize(self, status):
        self.told.append(("end", status))


@pytest.fixture(autouse=True)
def forget():
    Kept.told.clear()


def test_a_fabric_logger_by_its_class(tmp_path):
    log = ("csv", "lightning.fabric.loggers.CSVLogger", "test_loggers.Kept")
    result = fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "run", **OPTIONS | QUIET | {"log": log})
    ours = read_rows(result.out / "log" / "scalars.csv")
    (file,) = (result.out / "log").rglob("metrics.csv")
    with file.open(newline="") as stream:
        theirs = {row["step"]: row for row in csv.DictReader(stream) if row["loss"]}
    assert [row["step"] for row in ours] == list(theirs) == ["2", "4"]
    for row in ours:
        for name in ("loss", "loss/seg", "loss/depth", "lr"):
            assert float(row[name]) == pytest.approx(float(theirs[row["step"]][name]), rel=1e-6), name
    first, *rest, last = Kept.told
    assert first == ("made", "default", str(result.out / "log")) and last == ("end", "success")
    measured = {step: values for step, values in rest if "val/seg/miou" in values}
    assert {s: v["val/seg/miou"] for s, v in measured.items()} == {
        e["step"]: e["metrics"]["seg"]["miou"] for e in result.history
    }


def test_a_run_that_fails_is_told_as_such(tmp_path):
    with pytest.raises(GarnishError, match="lower lr"):
        fit(
            tiny(),
            Blobs(every(4)),
            Blobs(every(2)),
            out=tmp_path / "run",
            **OPTIONS | QUIET | {"log": ("test_loggers.Kept",), "lr": 1e30},
        )
    assert Kept.told[-1] == ("end", "aborted")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lightning.fabric.loggers.CSVLoger", "cannot be imported"),
        ("no.such.Logger", "cannot be imported .*no"),
        ("os.system", "os.system is no class of a Fabric logger"),
        ("pathlib.Path", "pathlib.Path is no class of a Fabric logger"),
        (".x", "choose from tensorboard, csv, wandb"),
    ],
)
def test_mistakes_stop_a_run_before_its_folder_is_made(tmp_path, name, message):
    with pytest.raises(OptionError, match=message) as caught:
        fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **OPTIONS | QUIET | {"log": ("csv", name)})
    assert "\n" not in str(caught.value) and str(caught.value).startswith("train.log: ")
    assert not (tmp_path / "run").exists()


def test_what_is_not_installed_or_does_not_start_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, install in (("wandb", "wandb"), ("mlflow", "mlflow"), ("comet", "comet-ml")):
        with pytest.raises(MissingExtraError, match=f"train.log: {name} is not installed; pip install {install},"):
            log_kinds((name,))
    monkeypatch.undo()
    monkeypatch.setattr(Kept, "broken", True)
    with pytest.raises(OptionError, match=r"test_loggers.Kept cannot be started \(no server at all\); set it up"):
        told = {"log": ("test_loggers.Kept",)}
        fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "run", **OPTIONS | QUIET | told)


def test_short_names_are_loggers_of_lightning(monkeypatch):
    loggers = importlib.import_module("lightning.pytorch.loggers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if all were installed
    found = [logger_class(name) for name in ("wandb", "mlflow", "comet")]
    assert found == [loggers.WandbLogger, loggers.MLFlowLogger, loggers.CometLogger]
