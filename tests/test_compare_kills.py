"""A comparison that is killed, asked to stop, or finds a full disk goes on as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comparing_cases import run, without_times
from garnish.errors import GarnishError
from garnish.files import atomic

GIVEN = {"references": ["frozen", "single"], "seeds": 2}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, mit_weights):
    return run(tmp_path_factory.mktemp("unbroken") / "report", mit_weights, **GIVEN)


def start(folder: Path, mit_weights: Path, **given):
    """The same comparison in a process of its own."""
    script = Path(__file__).with_name("comparing_cases.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(folder), str(mit_weights), json.dumps(GIVEN | given)]
    return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, start_new_session=True)


def amount(folder: Path) -> int:
    """Something that grows as a comparison goes on: its files; folders may vanish meanwhile."""
    return sum(len(files) for _, _, files in os.walk(folder))


def kill_at(folder: Path, mit_weights: Path, files: int, delay: float, number: int, **given) -> int | None:
    """Start, and send a signal a while after there are so many files; None where it was over before that."""
    process = start(folder, mit_weights, **given)
    try:
        until = time.monotonic() + 300
        while time.monotonic() < until and process.poll() is None and amount(folder) < files:
            time.sleep(0.02)
        time.sleep(delay)
        if process.poll() is not None:
            process.communicate()
            return None
        process.send_signal(number)
        process.communicate(timeout=120)
        return process.returncode
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def assert_like(folder: Path, found, unbroken) -> None:
    assert without_times(found) == without_times(unbroken)
    assert not list(folder.rglob("state.safetensors")) and not list(folder.rglob("*.writing"))


def test_two_kills(tmp_path, mit_weights, unbroken):
    folder = tmp_path / "report"
    for files, delay in ((12, 0.1), (60, 0.3)):
        assert kill_at(folder, mit_weights, files, delay, signal.SIGKILL) == -signal.SIGKILL
    assert_like(folder, run(folder, mit_weights, **GIVEN), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_twenty_kills(tmp_path, mit_weights, unbroken, jobs):
    folder = tmp_path / "report"
    draw = random.Random(20)
    moments = sorted((draw.randrange(1, 190), draw.uniform(0, 1.0)) for _ in range(20))
    killed = sum(kill_at(folder, mit_weights, f, d, signal.SIGKILL, jobs=jobs) is not None for f, d in moments)
    assert killed >= 15, "most came before the end"
    time.sleep(3)  # workers of the last killed parent notice that it is gone
    assert_like(folder, run(folder, mit_weights, **GIVEN), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_ends_with_a_checkpoint_and_143(tmp_path, mit_weights, unbroken, jobs):
    folder = tmp_path / "report"
    process = start(folder, mit_weights, jobs=jobs)
    until = time.monotonic() + 120
    while time.monotonic() < until and not list(folder.rglob("state.safetensors")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    # between two runs, in this very process, there is nothing to save, and the signal ends it as any other
    assert process.returncode in (143, -signal.SIGTERM)
    assert not Path(f"/proc/{process.pid}").exists()
    assert_like(folder, run(folder, mit_weights, **GIVEN), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_after_a_runs_last_step_is_not_lost(tmp_path, mit_weights, unbroken, monkeypatch, jobs):
    folder = tmp_path / "report"
    monkeypatch.setenv("LATE_SIGTERM", "own" if jobs == 1 else "parent")
    process = start(folder, mit_weights, jobs=jobs)
    try:
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143
    assert 1 <= len(list((folder / ".store/runs").iterdir())) <= jobs, "no further run was begun"
    assert_like(folder, run(folder, mit_weights, **GIVEN), unbroken)


@pytest.mark.slow
def test_workers_do_not_outlive_their_parent(tmp_path, mit_weights):
    folder = tmp_path / "report"
    process = start(folder, mit_weights, jobs=2)
    until = time.monotonic() + 120
    while time.monotonic() < until and len(list(folder.rglob("state.safetensors"))) < 2:
        time.sleep(0.02)
    children = children_of(process.pid)
    assert children
    process.kill()
    process.communicate()
    until = time.monotonic() + 60
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in children):
        time.sleep(0.1)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def children_of(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    if not task.is_file():
        pytest.skip("this system does not list children in /proc")
    return [int(child) for child in task.read_text().split()]


@pytest.mark.slow
def test_two_comparisons_of_one_folder_share_the_work(tmp_path, mit_weights, unbroken):
    folder = tmp_path / "report"
    both = [start(folder, mit_weights) for _ in range(2)]
    said = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert_like(folder, json.loads((folder / "results.json").read_text("utf-8")), unbroken)
    logs = [file.read_text("utf-8") for file in folder.rglob("log.txt")]
    assert all(log.count("finished after") <= 1 for log in logs)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path, mit_weights, unbroken, monkeypatch):
    folder = tmp_path / "report"
    inner, left = atomic._write, [0]

    def write(file, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        inner(file, data)

    monkeypatch.setattr(atomic, "_write", write)
    for writes in (0, 1, 4, 23, 60):
        left[0] = writes
        with pytest.raises((GarnishError, OSError)) as fault:
            run(folder, mit_weights, **GIVEN)
        assert "No space left on device" in str(fault.value) and "\n" not in str(fault.value)
        assert not list(folder.rglob("failed.json"))
    left[0] = 10**9
    assert_like(folder, run(folder, mit_weights, **GIVEN), unbroken)


@pytest.mark.slow
def test_a_small_disk(tmp_path, mit_weights, unbroken):
    """A file system of its own that is full after some runs, and is then made larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a file system")
    try:
        with pytest.raises((GarnishError, OSError), match="No space left on device"):
            run(place / "report", mit_weights, **GIVEN)
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        found = run(place / "report", mit_weights, **GIVEN)
        assert_like(place / "report", found, unbroken)
    finally:
        subprocess.run(["umount", str(place)], check=False)
