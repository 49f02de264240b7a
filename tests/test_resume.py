"""A run that is killed goes on as if it had not been: bit-equal tensors, the same evaluations."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import garnish as gn
from garnish.bundles.checkpoint import load_state, save_state
from garnish.engine.drop_path import set_drop_path
from garnish.errors import BundleError, OptionError
from garnish.training import read_ahead
from garnish.training.run import Run
from garnish.training.run_folder import working_in
from garnish.training.step import TrainingStep
from garnish.training.step_losses import MultiTaskLoss
from training_cases import PARTIAL, QUIET, Blobs, every, long_run, tensors_of, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def unbroken(one_thread, tmp_path_factory):
    return long_run(tmp_path_factory.mktemp("unbroken") / "run")


def assert_same(folder: Path, model, result, unbroken) -> None:
    whole, wanted = unbroken
    expected = tensors_of(whole)
    for name, tensor in tensors_of(model).items():
        assert torch.equal(tensor, expected[name]), name
    ours, theirs = load_file(folder / "best/weights.safetensors"), load_file(wanted.out / "best/weights.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    mine, _ = load_state(folder / "last/state.safetensors")
    full, _ = load_state(wanted.out / "last/state.safetensors")
    assert mine.keys() == full.keys()
    assert any(n.startswith("optimizer/") for n in mine)
    assert all(torch.equal(mine[n], full[n]) for n in mine)
    assert result.history == wanted.history
    assert (folder / "results.csv").read_text() == (wanted.out / "results.csv").read_text()
    steps = [line.split(",")[0] for line in (folder / "log/scalars.csv").read_text().splitlines()]
    assert steps == [line.split(",")[0] for line in (wanted.out / "log/scalars.csv").read_text().splitlines()]


def test_killed_at_any_moment_and_resumed(tmp_path, unbroken):
    folder = tmp_path / "cut"
    script = Path(__file__).with_name("training_cases.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script), "cut", str(tmp_path)], env=env, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            file = folder / "last/state.safetensors"
            if file.is_file() and load_state(file)[1]["state"]["step"] >= 5:
                break
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read().decode()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 5 <= load_state(file)[1]["state"]["step"] < 12
    model, result = long_run(None, resume=folder)
    assert_same(folder, model, result, unbroken)


@pytest.mark.parametrize("read", [5, 18])
def test_sigterm_undoes_the_step_and_ends_with_143(tmp_path, unbroken, monkeypatch, capsys, read):
    original = Blobs.__getitem__

    def with_kill(self, index):
        self.kill_at = read if self.seed == 0 else None
        return original(self, index)

    monkeypatch.setattr(Blobs, "__getitem__", with_kill)
    with pytest.raises(SystemExit) as stopped:
        long_run(tmp_path / "run")
    assert stopped.value.code == 143
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "stopped by SIGTERM" in line]
    run = f"{tmp_path}/run"
    assert line.endswith(
        f"after step {read // 4}; to go on: the same fit(…, resume={run!r}), with model, data and options as before"
    )
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.setattr(Blobs, "__getitem__", original)
    # four reads a step: asked to stop within a step, the run ends before it
    assert load_state(tmp_path / "run/last/state.safetensors")[1]["state"]["step"] == read // 4
    model, result = long_run(None, resume=tmp_path / "run")
    assert_same(tmp_path / "run", model, result, unbroken)


def killed_in(monkeypatch, owner, name, call, counted=None):
    """SIGTERM in the middle of the ``call``-th call of a function, or of the one after that call of another."""
    original, count = getattr(owner, name), [0]

    def killing(*args, **kwargs):
        count[0] += 1
        if (counted or count)[0] == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, killing)
    return count


@pytest.mark.parametrize(
    ("place", "call", "step", "passes"),
    [
        ("forward", 7, 3, 1),  # of step 4, first pass: its running statistics have moved
        ("forward", 8, 3, 2),  # second pass: the gradients of the first are there
        ("backward", 7, 3, 1),  # the second pass is not begun
        ("backward", 8, 4, 0),  # after the last one the step is finished
        ("evaluation", 2, 4, 0),  # which is done again, all of it
    ],
)
def test_sigterm_waits_for_one_pass_at_most(tmp_path, unbroken, monkeypatch, place, call, step, passes):
    forward = killed_in(monkeypatch, MultiTaskLoss, "__call__", call if place == "forward" else 0)
    killed_in(monkeypatch, TrainingStep, "backward", call if place == "backward" else 0, forward)
    pictures = killed_in(monkeypatch, read_ahead, "collate", call if place == "evaluation" else 0)
    with pytest.raises(SystemExit) as stopped:
        long_run(tmp_path / "run")
    assert stopped.value.code == 143
    assert load_state(tmp_path / "run/last/state.safetensors")[1]["state"]["step"] == step
    assert forward[0] == 2 * step + passes and pictures[0] == (2 if place == "evaluation" else 0)
    monkeypatch.undo()
    model, result = long_run(None, resume=tmp_path / "run")
    assert_same(tmp_path / "run", model, result, unbroken)


def test_a_signal_after_the_last_step_is_not_lost(tmp_path, unbroken, monkeypatch):
    finish = Run.finish

    def late(self):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(self)

    monkeypatch.setattr(Run, "finish", late)
    with pytest.raises(SystemExit) as stopped:
        long_run(tmp_path / "run")
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.setattr(Run, "finish", finish)
    model, result = long_run(None, resume=tmp_path / "run")
    assert_same(tmp_path / "run", model, result, unbroken)


def test_a_finished_run_resumes_to_the_same_result(unbroken):
    model, result = long_run(None, resume=unbroken[1].out)
    assert_same(unbroken[1].out, model, result, unbroken)


def test_a_run_killed_between_the_renames_of_its_bundle_goes_on(tmp_path, unbroken):
    folder = shutil.copytree(unbroken[1].out, tmp_path / "run")
    shutil.copytree(folder / "best", folder / ".best.writing")
    (folder / "best").rename(folder / ".best.replaced")
    model, result = long_run(None, resume=folder)
    assert_same(folder, model, result, unbroken)
    assert not [file.name for file in folder.glob(".best*")]


def test_a_run_is_locked_from_its_first_step_to_its_end(tmp_path):
    options = {"steps": 2, "batch_size": 4, "check_pictures": 0, **QUIET}
    tried: list[str] = []

    class Watching(Blobs):
        def __getitem__(self, index):
            try:
                with working_in(tmp_path / "run"):
                    tried.append("free")
            except OptionError as error:
                tried.append(str(error).split(": ")[1].split(" on ")[0])
            return super().__getitem__(index)

    out = gn.fit(tiny(), Watching(PARTIAL), out=tmp_path / "run", **options).out
    assert set(tried) == {f"process {os.getpid()}"}
    with working_in(out):  # it is free again; and as long as somebody has it, nobody resumes
        before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
        with pytest.raises(OptionError, match=rf"run: process {os.getpid()} on .* since .* trains in it; wait until"):
            gn.fit(tiny(), Blobs(PARTIAL), resume=out, **options)
        assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    tried.clear()
    gn.fit(tiny(), Blobs(PARTIAL), resume=out, **options)
    with pytest.raises(OptionError, match=r"train.lr = 0.001, not 0.1") as kept:
        gn.fit(tiny(), Watching(PARTIAL), resume=out, **options, lr=0.1)
    with working_in(out):  # though the error that was raised while it was held is still at hand
        assert kept.tb is not None


def test_a_damaged_last_state_falls_back_to_the_one_before(tmp_path, unbroken, monkeypatch):
    original = Blobs.__getitem__

    def cut_off(self, index):
        if self.seed == 0 and self.reads == 30:  # in the eighth step
            raise ZeroDivisionError
        return original(self, index)

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Blobs, "__getitem__", cut_off)
        long_run(tmp_path / "run")
    folder = tmp_path / "run/last"
    last, earlier = folder / "state.safetensors", folder / "earlier.safetensors"
    assert [load_state(file)[1]["state"]["step"] for file in (last, earlier)] == [7, 6]
    damaged = bytearray(last.read_bytes())
    damaged[-50] ^= 1  # in the weights, where no reader would mind
    last.write_bytes(bytes(damaged))
    (tmp_path / "run/results.csv").write_text("step,score\n4,0.9\n")  # damaged too; it has no digest
    model, result = long_run(None, resume=tmp_path / "run")
    assert [line for line in result.warnings if "going on from" in line] == [
        f"{last}: is damaged (its SHA-256 is not the one it was written with); going on from the state before, of"
        f" step 6 ({earlier})"
    ]
    assert_same(tmp_path / "run", model, result, unbroken)
    assert (folder / "damaged.safetensors").read_bytes() == damaged
    load_state(earlier)  # and not the damaged one


def test_where_both_states_are_damaged_or_the_last_is_gone(tmp_path):
    options = {"steps": 2, "batch_size": 4, "check_pictures": 0, "save_every": 1, **QUIET}
    out = gn.fit(tiny(), Blobs(PARTIAL), out=tmp_path / "run", **options).out
    last, earlier = out / "last/state.safetensors", out / "last/earlier.safetensors"
    last.unlink()
    reached = gn.fit(tiny(), Blobs(PARTIAL), resume=out, **options)
    assert reached.steps == 2 and "no such state file; going on from the state before" in reached.warnings[0]
    for file in (last, earlier):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{last}: is damaged .*; resume from another or start again"):
        gn.fit(tiny(), Blobs(PARTIAL), resume=out, **options)


def test_resuming_otherwise_is_refused(tmp_path):
    options = {"steps": 3, "batch_size": 4, "check_pictures": 0, **QUIET}
    out = gn.fit(tiny(), Blobs(PARTIAL), out=tmp_path / "run", **options).out
    with pytest.raises(OptionError, match=r"train.lr = 0.001, not 0.1"):
        gn.fit(tiny(), Blobs(PARTIAL), resume=out, **options, lr=0.1)
    with pytest.raises(OptionError, match="another backbone"):
        gn.fit(tiny(seed=4), Blobs(PARTIAL), resume=out, **options)
    dropping = tiny()
    set_drop_path(dropping.backbone, 0.2)
    with pytest.raises(OptionError, match=r"backbone\.drop_path = 0\.0, not 0\.2"):
        gn.fit(dropping, Blobs(PARTIAL), resume=out, **options)
    with pytest.raises(OptionError, match=r"adapter\.rank = 2, not 3"):
        gn.fit(tiny(gn.LoRA(rank=3)), Blobs(PARTIAL), resume=out, **options)
    older = shutil.copytree(out, tmp_path / "older")  # of a version that noted no adapters
    tensors, facts = load_state(older / "last/state.safetensors")
    save_state(older / "last/state.safetensors", tensors, {k: v for k, v in facts.items() if k != "methods"})
    with pytest.raises(BundleError, match="missing, unused or of another shape"):
        gn.fit(tiny(gn.LoRA(rank=3)), Blobs(PARTIAL), resume=older, **options)
    with pytest.raises(OptionError, match=r"with adapter\.alpha = 16.0, not 8.0; resume with"):
        gn.fit(tiny(gn.LoRA(rank=2, dropout=0.1, alpha=8.0)), Blobs(PARTIAL), resume=out, **options)
    with pytest.raises(OptionError, match="was started without validation data; give those"):
        gn.fit(tiny(), Blobs(PARTIAL), Blobs(PARTIAL), resume=out, **options)
    with pytest.raises(
        OptionError, match=r"other training data \(number of pictures: 8, now 6\); give those that it was"
    ):
        first = gn.fit(tiny(), Blobs(every(8)), out=tmp_path / "e", **{**options, "steps": None}, epochs=2).out
        gn.fit(tiny(), Blobs(every(6)), resume=first, **{**options, "steps": None}, epochs=2)
    with pytest.raises(BundleError, match="no such folder; give the run's folder"):
        gn.fit(tiny(), Blobs(PARTIAL), resume=tmp_path / "none", **options)
    for file in (out / "last").iterdir():
        file.write_bytes(b"\0" * 100)
    with pytest.raises(BundleError, match="damaged"):
        gn.fit(tiny(), Blobs(PARTIAL), resume=out, **options)


def test_warnings_of_every_session_are_told_once(tmp_path, monkeypatch):
    """Gradients are judged after three steps, whatever comes between."""
    head = gn.LinearHead()

    def run(**where):
        model = tiny(head=head)
        for name, parameter in model.trained_parameters().items():
            if "lora_a" in name:
                parameter.register_hook(torch.zeros_like)
                parameter.data.zero_()
        return gn.fit(model, Blobs(PARTIAL), steps=5, batch_size=4, check_pictures=0, save_every=1, **where, **QUIET)

    whole = run(out=tmp_path / "whole").warnings
    assert any("gradient" in line for line in whole), whole
    original = Blobs.__getitem__
    for reads in (6, 6, 6, 6):  # SIGTERM in the second step of each session
        with monkeypatch.context() as patched:
            patched.setattr(
                Blobs, "__getitem__", lambda self, i, at=reads: (setattr(self, "kill_at", at), original(self, i))[1]
            )
            where = {"resume": tmp_path / "cut"} if (tmp_path / "cut").exists() else {"out": tmp_path / "cut"}
            with pytest.raises(SystemExit):
                run(**where)
    assert run(resume=tmp_path / "cut").warnings == whole
