"""Runs under torchrun: which run a restarted group goes on with, signals, SLURM, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from garnish.bundles.checkpoint import open_state
from garnish.data.worker_signals import heed_parent_only
from garnish.errors import OptionError
from garnish.training import group_folder
from garnish.training.evaluate import evaluate_parts
from garnish.training.fit import fit
from garnish.training.group_folder import NOTE, begun_before, next_note, write_note
from garnish.training.run_folder import working_in
from garnish.training.signals import StopRequest
from garnish.training.torchrun import Group, followed
from torchrun_cases import Agents, ended, environment, prepare, unlike
from training_cases import QUIET, Blobs, every, tensors_of, tiny

ROOT = Path(__file__).parents[1]
#: What torchrun sets for one process.
ALONE = {
    "TORCHELASTIC_RUN_ID": "night", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": "0",
    "GROUP_WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0",
    "GROUP_RANK": "0",
}  # fmt: skip

# ---- which run ------------------------------------------------------------------------------------------------------


def test_a_process_of_its_own_has_no_group():
    assert Group.of({"WORLD_SIZE": "2", "RANK": "0"}) is None


def test_a_group_is_what_torchrun_says():
    assert Group.of(ALONE | {"GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"}) == Group("night", 2, 4, 3)
    with pytest.raises(OptionError, match="1,001 characters"):
        Group.of(ALONE | {"TORCHELASTIC_RUN_ID": "x" * 1001})


@pytest.mark.parametrize("run_id", ["none", ""])
def test_restarts_without_a_name_are_refused(run_id):
    with pytest.raises(OptionError, match=r"--max-restarts 3 without --rdzv-id: .*'runs/a'.*give torchrun --rdzv-id"):
        Group(run_id, 1, 2, 3).check_named("runs/a")
    assert "has no --rdzv-id" in Group(run_id, 2, 1, 0).check_named("runs/a")
    assert Group(run_id, 1, 2, 0).check_named("runs/a") == ""
    assert Group("night", 2, 2, 3).check_named("runs/a") == ""


def test_a_group_finds_its_own_folder_and_no_other(tmp_path):
    wanted = tmp_path / "a"
    own = {"run_id": "night", "number": 1}
    assert begun_before(tmp_path / "nowhere" / "a", own) is None
    foreign = {
        "a": {"run_id": "day", "number": 1},
        "a-2": {"run_id": "night", "number": 2},
        "a-more": own,
        "a-3x": own,
        "b": own,
    }
    for name, note in foreign.items():
        (tmp_path / name).mkdir()
        write_note(tmp_path / name, note)
    (tmp_path / "a-3").mkdir()
    for damaged in (b"", b"[]", b'{"run_id": "night"}', b"{" * 20_000, b'{"run_id": "night", "number": true}'):
        (tmp_path / "a-3" / NOTE).write_bytes(damaged)
        assert begun_before(wanted, own) is None
    (tmp_path / "a-10").mkdir()
    write_note(tmp_path / "a-10", own)
    assert begun_before(wanted, own) == tmp_path / "a-10"


def test_runs_of_one_program_are_told_apart_by_their_order(monkeypatch):
    monkeypatch.setattr(group_folder, "_begun", type(group_folder._begun)())
    group = Group("night", 1, 1, 0)
    assert [next_note(group, out)["number"] for out in ("a", "b", "a")] == [1, 1, 2]


@pytest.fixture
def started(monkeypatch):
    """Start this process's program anew, as torchrun would, with more of its variables."""
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)

    def again(**more: str) -> None:
        monkeypatch.setattr(group_folder, "_begun", type(group_folder._begun)())
        for name, value in more.items():
            monkeypatch.setenv(name, value)

    again()
    return again


OPTIONS = {"steps": 3, "batch_size": 2, "save_every": 1, "lr": 1e-3, "check_pictures": 0, **QUIET}


def test_a_stopped_program_goes_on_in_its_folder_and_ends_equal(tmp_path, started):
    whole = tiny()
    fit(whole, Blobs(every(4)), out=tmp_path / "whole", **OPTIONS)
    data = Blobs(every(4))
    data.kill_at = 4  # in the second step
    started()
    with pytest.raises(SystemExit) as stopped:
        fit(tiny(), data, out=tmp_path / "run", **OPTIONS)
    assert stopped.value.code == 143
    started(TORCHELASTIC_RESTART_COUNT="1")
    model = tiny()
    result = fit(model, Blobs(every(4)), out=tmp_path / "run", **OPTIONS)
    assert (result.out, result.steps) == (tmp_path / "run", 3)
    assert {n: t.tolist() for n, t in tensors_of(model).items()} == {
        n: t.tolist() for n, t in tensors_of(whole).items()
    }
    assert not (tmp_path / "run-2").exists()

    again = fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **OPTIONS)
    assert again.out == tmp_path / "run-2", "the same program's second run"
    started()
    assert fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **OPTIONS).out == tmp_path / "run"
    started(TORCHELASTIC_RUN_ID="another")
    assert fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **OPTIONS).out == tmp_path / "run-3"
    started(TORCHELASTIC_RUN_ID="night")
    with pytest.raises(OptionError, match=r"run, begun under torchrun --rdzv-id night: was started with train\.lr"):
        fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **OPTIONS | {"lr": 2e-3})


def test_a_program_killed_before_its_first_checkpoint_begins_again_in_its_folder(tmp_path, started):
    folder = tmp_path / "run"
    (folder / "last").mkdir(parents=True)
    write_note(folder, {"run_id": "night", "number": 1})
    (folder / ".args.yaml.writing").write_text("train: {st")  # cut off
    assert fit(tiny(), Blobs(every(4)), out=folder, **OPTIONS).out == folder
    assert sorted(p.name for p in folder.iterdir() if "writing" in p.name) == []


def test_without_a_name_restarts_are_refused_before_anything_is_made(tmp_path, started):
    started(TORCHELASTIC_RUN_ID="none")
    with pytest.raises(OptionError, match="--max-restarts 3 without --rdzv-id"):
        fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_whoever_waits_for_a_folder_gets_it_when_the_other_is_gone(tmp_path):
    held, let_go = threading.Event(), threading.Event()

    def other() -> None:
        with working_in(tmp_path):
            held.set()
            let_go.wait()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        held.wait()
        with pytest.raises(OptionError, match="trains in it"), working_in(tmp_path, 0.2):
            pass
        threading.Timer(0.4, let_go.set).start()
        with working_in(tmp_path, 20.0):
            assert let_go.is_set()
    finally:
        let_go.set()
        thread.join()


# ---- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signals_are_noted_and_tell_themselves_by_the_exit_code(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup, say
    try:
        with pytest.raises(SystemExit) as stopped, StopRequest() as request:
            os.kill(os.getpid(), number)
            assert request.number == number
        assert stopped.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def _prepare_batches(ready) -> None:
    heed_parent_only()
    ready.set()
    time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system does not tell who sent a signal")
def test_a_process_that_prepares_batches_heeds_its_parent_alone():
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=_prepare_batches, args=(ready,))
    worker.start()
    try:
        assert ready.wait(30)
        for name in ("TERM", "INT", "HUP", "USR1", "USR2", "TERM"):  # as SLURM sends them, to every process of a job
            subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
        worker.join(0.5)
        assert worker.is_alive()
        worker.terminate()
        worker.join(10)
        assert worker.exitcode == 0
    finally:
        worker.kill()
        worker.join()


#: starts a process that follows it, and is killed
ORPHAN = """
import os, signal, subprocess, sys, time
from garnish.training.torchrun import Group, followed
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
with followed(Group("night", 1, 1, 0)):
    print("follows", flush=True)
    time.sleep(60)
"""


def test_a_process_ends_when_its_torchrun_is_killed(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    told = subprocess.run([sys.executable, str(tmp_path / "orphan.py")], stdout=subprocess.PIPE, check=False)
    status, until = Path(f"/proc/{int(told.stdout)}/stat"), time.monotonic() + 20
    while status.exists() and status.read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_nobody_is_followed_without_torchrun():
    before = threading.active_count()
    with followed(None):
        assert threading.active_count() == before


# ---- two machines, which are two agents on this one -----------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run leaves that nobody touched, and its folder."""
    place = prepare(tmp_path_factory.mktemp("whole"))
    agents = Agents(place, f"whole-{os.getpid()}")
    agents.start(0, 1)
    try:
        assert agents.wait() == {0: 0, 1: 0}, agents.log.read_text()
    finally:
        agents.close()
    return ended(place), place


@pytest.fixture
def place(whole):
    """The folder of ``whole``, whose name is in what a run writes, without its run."""
    shutil.rmtree(whole[1] / "run", ignore_errors=True)
    return whole[1]


def one_line(text: str, pattern: str) -> str:
    lines = [line for line in text.splitlines() if re.search(pattern, line)]
    assert lines, text[-3000:]
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_process_stops_all_after_the_same_step(whole, place, number):
    """A checkpoint is written, each process ends with the signal's code, and both go on to an equal end."""
    agents = Agents(place, f"one-{number}-{os.getpid()}", restarts=0)
    agents.start(0, 1)
    try:
        agents.wait_for("results.csv")  # after the first evaluation
        os.kill(agents.ranks(1)[0], number)
        assert all(agents.wait().values())
        text = agents.log.read_text()
        one_line(text, rf"stopped by {number.name} after step \d+; to go on: the same torchrun again")
        told = re.findall(rf"\n +rank +: (\d) .*\n +exitcode +: {128 + number} ", text)
        assert sorted(told) == ["0", "1"], text[-3000:]
        agents.start(0, 1)
        assert agents.wait() == {0: 0, 1: 0}, agents.log.read_text()
    finally:
        agents.close()
    assert unlike(ended(place), whole[0]) == []


#: The second process gets a signal while it evaluates, if a third word says so.
EVALUATES = """
import os, sys
import torch
import garnish as gn
from training_cases import QUIET, Blobs, every, tiny
torch.set_num_threads(1)
val = Blobs(every(6), seed=1)
if sys.argv[2:] == ["cut"] and os.environ["RANK"] == "1":
    val.kill_at = 3
options = {"steps": 4, "eval_every": 2, "batch_size": 1, "lr": 1e-3, "check_pictures": 0, "accelerator": "cpu", **QUIET}
gn.fit(tiny(gn.LoRA(rank=2)), Blobs(every(8)), val, out=sys.argv[1], **options)
"""


@pytest.mark.slow
def test_a_signal_during_an_evaluation_leaves_it_out_in_all_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(EVALUATES)

    def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        started = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2"]
        started += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--rdzv-id", "night", str(script)]
        env = environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
        return subprocess.run([*started, name, *words], cwd=tmp_path, env=env, capture_output=True, text=True)

    assert run("whole").returncode == 0
    cut = run("cut", "cut")
    assert cut.returncode != 0
    one_line(cut.stderr, "stopped by SIGTERM after step 2")
    state = open_state(tmp_path / "cut/last/state.safetensors").facts["state"]
    assert (state["step"], state["history"]) == (2, [])
    assert run("cut").returncode == 0
    for file in ("best/weights.safetensors", "results.csv"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_an_evaluation_ends_when_it_is_told_to():
    seen: list[list[int]] = []
    data = Blobs(every(5))
    evaluate_parts(
        tiny(), data, [[0, 1, 2], [3, 4]], batch_size=1, size=None, after_each=lambda *now: bool(seen.append(now[0]))
    )
    assert seen == [[0], [3]]


@pytest.mark.slow
def test_another_number_of_processes_is_refused_in_one_line(whole, place):
    """Of ``--nnodes 1:2`` one machine does not come back."""
    agents = Agents(place, f"range-{os.getpid()}", nodes="1:2", restarts=1)
    agents.start(0, 1)
    try:
        agents.wait_for("results.csv")
        for number in (0, 1):
            agents.agents[number].terminate()
        agents.wait()
        del agents.agents[1]
        agents.start(0)
        assert agents.wait()[0] != 0
        told = one_line(agents.log.read_text(), "not 1, ")
        assert re.search(r"was started with 2 processes, not 1, .*; start 2 again .*--nnodes", told) and len(told) < 400
        agents.start(0, 1)
        assert agents.wait() == {0: 0, 1: 0}, agents.log.read_text()
    finally:
        agents.close()
    assert unlike(ended(place), whole[0]) == []


@pytest.mark.slow
def test_killed_processes_and_machines():
    """Twenty at random times; twice as many by hand."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.torchrun_kills", "--kills", "20", "--seed", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "20 kills; " in told.stdout


@pytest.mark.slow
def test_a_recipe_runs_unchanged_under_torchrun(tmp_path):
    """That of docs/machines.md: two processes take batches of half the size, and reach about the same."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "garnish", "train"]
    words = ["--config", str(ROOT / "recipes/scenes.yaml"), "--out", "run", "--train.steps", "4", "--train.eval_every"]
    told = subprocess.run(
        [*command, *words, "4", "--data.val", "2", "--data.train", "16"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    assert (tmp_path / "run/best/bundle.json").is_file()
    assert told.stdout.count("bundle: run/best") == 1, "one process speaks"


# ---- SLURM ----------------------------------------------------------------------------------------------------------

#: Commands of SLURM and torchrun, which do on this machine what they would do on two.
COMMANDS = {
    "scontrol": """
        case "$1" in
            show) echo localhost; echo localhost;;
            requeue) echo "$2" >> "$FAKE/requeued";;
        esac""",
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        for node in $(seq "$SLURM_NNODES"); do "$@" & echo $! >> "$FAKE/agents"; done
        code=0
        for agent in $(jobs -p); do wait "$agent" || code=$?; done
        exit $code""",
    "scancel": """
        for agent in $(cat "$FAKE/agents"); do
            kill -TERM $(cat /proc/$agent/task/$agent/children) $agent
        done""",
    "torchrun": 'exec "$PYTHON" -m torch.distributed.run "$@"',
}


def test_the_slurm_script_is_sound():
    subprocess.run(["bash", "-n", str(ROOT / "recipes/slurm.sh")], check=True)
    told = subprocess.run(["bash", str(ROOT / "recipes/slurm.sh")], capture_output=True, text=True, check=False)
    assert told.returncode == 2 and "usage: sbatch" in told.stderr


@pytest.mark.slow
def test_a_slurm_job_whose_time_is_over_starts_anew_and_goes_on(whole, place, tmp_path):
    (tmp_path / "bin").mkdir()
    for name, text in COMMANDS.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
    job = os.getpid()
    env = environment() | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHON": sys.executable, "FAKE": str(tmp_path),
        "SLURM_JOB_ID": str(job), "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[1-2]",
    }  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        (tmp_path / "agents").unlink(missing_ok=True)
        words = ["bash", str(ROOT / "recipes/slurm.sh"), "recipe.yaml", "run", "--quiet"]
        with (tmp_path / "log.txt").open("a") as log:
            return subprocess.Popen(words, cwd=place, env=env, stdout=log, stderr=log)

    script = start()
    try:
        until = time.monotonic() + 600
        while not (place / "run/results.csv").exists():
            assert script.poll() is None and time.monotonic() < until, (tmp_path / "log.txt").read_text()[-3000:]
            time.sleep(0.05)
        script.send_signal(signal.SIGUSR1)
        assert script.wait(600) != 0
        assert (tmp_path / "requeued").read_text() == f"{job}\n", (tmp_path / "log.txt").read_text()[-3000:]
        one_line((tmp_path / "log.txt").read_text(), "stopped by SIGTERM after step")
        script = start()
        assert script.wait(600) == 0, (tmp_path / "log.txt").read_text()[-3000:]
        assert (tmp_path / "requeued").read_text() == f"{job}\n", "a job that ended is not started again"
    finally:
        script.kill()
        script.wait()
        for agent in (tmp_path / "agents").read_text().split():
            subprocess.run(["kill", "-KILL", agent], check=False, stderr=subprocess.DEVNULL)
    assert unlike(ended(place), whole[0]) == []
