"""Other loggers than CSV and TensorBoard: a real one by its class, one of our own, and mistakes in one line."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.fabric.loggers import Logger

import garnish
from garnish.cli import main
from garnish.errors import GarnishError, MissingExtraError, OptionError
from garnish.files.strict_yaml import read_yaml, write_yaml
from garnish.recipes.recipe import read_recipe
from garnish.training.fit import fit
from garnish.training.loggers import KNOWN, logger_class
from garnish.training.scalars import log_kinds, read_rows
from training_cases import QUIET, Blobs, every, tiny

OPTIONS = {"steps": 4, "batch_size": 2, "eval_every": 2, "log_every": 2, "check_pictures": 0}
OURS = "test_loggers.Kept"


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
    log = ("csv", "lightning.fabric.loggers.CSVLogger", OURS)
    told = {"log": log, "allow_loggers": [OURS]}
    result = fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "run", **OPTIONS | QUIET | told)
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
            **OPTIONS | QUIET | {"log": (OURS,), "allow_loggers": (OURS,), "lr": 1e30},
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
        told = {"log": ("csv", name), "allow_loggers": [name]}
        fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **OPTIONS | QUIET | told)
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
        told = {"log": (OURS,), "allow_loggers": (OURS,)}
        fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "run", **OPTIONS | QUIET | told)


def test_short_names_are_loggers_of_lightning(monkeypatch):
    loggers = importlib.import_module("lightning.pytorch.loggers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if all were installed
    found = [logger_class(name) for name in ("wandb", "mlflow", "comet")]
    assert found == [loggers.WandbLogger, loggers.MLFlowLogger, loggers.CometLogger]


def test_known_classes_exist():
    assert {logger_class(name).__name__ for name in KNOWN if "Neptune" not in name} > {"CSVLogger", "WandbLogger"}


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported, in a folder that modules are looked for in."""
    (tmp_path / "trap.py").write_text("open('sprung', 'w')\nLogger = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "trap.Logger"
    sys.modules.pop("trap", None)
    assert "trap" not in sys.modules and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["trap.Logger", "lightning.__main__.x", "lightning.fabric.loggers.csv_logs.os"])
def test_what_a_recipe_alone_names_is_not_imported(trap, name):
    before = set(sys.modules)
    recipe = {"backbone": "mit_b0", "data": "scenes", "train": {"steps": 1, "log": ["csv", name]}, "out": "run"}
    inside = recipe | {"train": recipe["train"] | {"allow_loggers": [name]}}
    for given in (recipe, recipe | {"allow_loggers": [name]}, inside):
        with pytest.raises(OptionError, match=r"to import it runs its code; if you trust|unknown (key|option)"):
            Path("r.yaml").write_text(write_yaml(given))
            _ = read_recipe("r.yaml").options
    with pytest.raises(OptionError, match="if you trust it, add --allow-logger"):
        fit(tiny(), Blobs(every(4)), out="run", **OPTIONS | QUIET | {"log": (name,)})
    assert not Path("run").exists() and not (set(sys.modules) - before) & {"trap", "lightning.__main__"}


def test_every_verb_wants_the_allowance_outside_the_recipe(trap, capsys):
    plain = {"backbone": "mit_b0", "data": "scenes", "train": {"steps": 1, "log": [trap]}, "out": "run"}
    Path("r.yaml").write_text(write_yaml(plain))
    for words in (["train"], ["compare"], ["train", "--train.log", trap]):
        assert main([words[0], "--config", "r.yaml", "--out", "o", *words[1:]]) == 2
        assert f"if you trust it, add --allow-logger {trap}" in capsys.readouterr().err
    assert main(["train", "--config", "r.yaml", "--allow-logger", f"{trap},a.b", "--print-config"]) == 0
    assert trap in capsys.readouterr().out


def test_an_allowance_is_not_kept_with_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told = {"log": (OURS,), "allow_loggers": (OURS,), "recipe": {"train": {"steps": 4, "log": [OURS]}}}
    run = fit(tiny(), Blobs(every(4)), Blobs(every(2)), out="run", **OPTIONS | QUIET | told).out
    stored = read_yaml(run / "args.yaml")
    assert "allow" not in str(stored) and stored["train"]["log"] == [OURS]
    with pytest.raises(OptionError, match="if you trust it"):
        _ = read_recipe(run / "args.yaml").options
    with pytest.raises(OptionError, match="if you trust it"):
        fit(tiny(), Blobs(every(4)), Blobs(every(2)), resume=run, **OPTIONS | QUIET | {"log": (OURS,)})


@pytest.mark.parametrize("start", [["-m", "garnish"], ["-c", "from garnish.cli import main; main()"]])
def test_modules_of_the_current_folder_are_not_run(tmp_path, start):
    for name in ("yaml", "logging", "argparse", "difflib", "tensorboard", "torch", "rich", "wandb"):
        (tmp_path / f"{name}.py").write_text("open('sprung', 'w')\n")
    (tmp_path / "r.yaml").write_text("bakbone: mit_b0\n")
    words = [*start, "train", "--config", "r.yaml"]
    flags = ["-P"] if start[0] == "-c" else []  # as the command is started
    told = subprocess.run(
        [sys.executable, *flags, *words],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(garnish.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "unknown key 'bakbone'" in told.stderr, told.stderr
    assert not (tmp_path / "sprung").exists()


def test_processes_that_the_command_starts_do_not_run_them_either(tmp_path):
    (tmp_path / "pickle.py").write_text("open('sprung', 'w')\n")
    program = (
        "import sys\nfrom garnish.cli import main\nif __name__ == '__main__':\n    main()\n"
        "    from multiprocessing import get_context\n    import os\n"
        "    made = get_context('spawn').Process(target=os.getpid)\n    made.start()\n    made.join()\n"
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "garnish").write_text(program)
    subprocess.run(
        [sys.executable, "bin/garnish", "version", "--json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(garnish.__file__).parents[1])},
        capture_output=True,
        check=True,
    )
    assert not (tmp_path / "sprung").exists()
