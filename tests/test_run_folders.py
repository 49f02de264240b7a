"""A run's folder belongs to one start and one process: with real processes, on the layer that needs no torch."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from garnish.errors import BundleError, OptionError
from garnish.files.locks import holder, locked
from garnish.training.run_folder import new_folder, working_in

#: takes a folder in each round, when the file that starts the round is there; prints what it got
TAKE = """
import sys, time
from pathlib import Path
from garnish.training.run_folder import new_folder
assert "torch" not in sys.modules
place, rounds = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for number in range(rounds):
    while not (place / f"go{number}").exists():
        pass
    folder = new_folder(place / f"run{number}")
    time.sleep(0.02)  # until something is written there
    (folder / "args.yaml").write_text(sys.argv[3])
    print(folder.name, flush=True)
"""
#: holds the lock of a run until it is told to end
HOLD = """
import sys
from pathlib import Path
from garnish.training.run_folder import working_in
with working_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def python(script: str, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("exists", [False, True])
def test_starts_at_once_take_folders_of_their_own(tmp_path, exists):
    rounds = 12
    all_of_them = [python(TAKE, tmp_path, rounds, number) for number in range(3)]
    try:
        for process in all_of_them:
            assert process.stdout.readline() == "ready\n"
        for number in range(rounds):
            if exists:  # an empty folder that was there is taken too, by one
                (tmp_path / f"run{number}").mkdir()
            (tmp_path / f"go{number}").touch()
            got = sorted(process.stdout.readline().strip() for process in all_of_them)
            assert got == [f"run{number}", f"run{number}-2", f"run{number}-3"]
    finally:
        for process in all_of_them:
            process.kill()
            process.communicate()


def test_what_holds_something_is_not_taken(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").touch()
    (tmp_path / "run-2").touch()
    assert new_folder(tmp_path / "run") == tmp_path / "run-3"
    assert new_folder(tmp_path / "run") == tmp_path / "run-4"
    with pytest.raises(OptionError, match=r"out: .*notes.txt/run cannot be made \(Not a directory\); choose another"):
        new_folder(tmp_path / "run/notes.txt/run")


def test_a_second_process_is_told_who_works_in_a_folder_and_a_kill_frees_it(tmp_path):
    first = python(HOLD, tmp_path)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(OptionError) as told, working_in(tmp_path):
            pass
        since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
        who = rf"process {first.pid} on {re.escape(socket.gethostname())} since {since}"
        assert re.fullmatch(
            rf"{re.escape(str(tmp_path))}: {who} trains in it; wait until it ends, or stop it, then resume",
            str(told.value),
        )
        first.send_signal(signal.SIGKILL)
        first.communicate()
        with working_in(tmp_path):  # at once, though what the killed one said of itself is still there
            assert f"process {os.getpid()} " in holder(tmp_path / ".lock")
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    finally:
        first.kill()


def test_threads_and_damaged_notes(tmp_path):
    with working_in(tmp_path):
        (tmp_path / ".lock.by").write_text('{"pid": "x"')
        found: list[str] = []

        def other() -> None:
            try:
                with working_in(tmp_path):
                    found.append("in")
            except OptionError as error:
                found.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [f"{tmp_path}: another process trains in it; wait until it ends, or stop it, then resume"]
    with working_in(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), working_in(tmp_path):
        raise ZeroDivisionError
    with working_in(tmp_path):
        pass


def test_waiting_for_a_lock_is_said_once_and_ends(tmp_path):
    first = python(HOLD, tmp_path)
    said: list[str] = []
    try:
        assert first.stdout.readline() == "held\n"
        threading.Timer(0.3, first.stdin.close).start()
        begun = time.monotonic()
        with locked(tmp_path / ".lock", said.append):
            assert 0.2 < time.monotonic() - begun < 20
        assert len(said) == 1 and said[0].startswith(f"process {first.pid} on ")
    finally:
        first.kill()
        first.wait()
        first.stdout.close()


def test_where_no_lock_can_be_made(tmp_path):
    (tmp_path / "run").touch()
    message = r"run: cannot be written \(.*\); (check the path and its rights|let no other process write there), then"
    with pytest.raises(BundleError, match=message), working_in(tmp_path / "run"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_twenty_starts_and_two_resumes_at_the_command_line(tmp_path):
    given = {
        "backbone": {"name": "garnish_b0"},
        "adapter": {"name": "LoRA", "rank": 2},
        "data": {"name": "scenes", "train": 4, "val": 2, "size": 32},
        "train": {"steps": 2, "batch_size": 1, "log": ["csv"]},
        "out": "run",
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(given))

    def start(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "garnish", "train", *words]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for _ in range(5):
        four = [start("--config", "recipe.yaml") for _ in range(4)]
        said = [process.communicate(timeout=300) for process in four]
        assert [process.returncode for process in four] == [0] * 4, said
        folders = sorted(out.splitlines()[-1] for out, _ in said)
        assert len(set(folders)) == 4
    assert len(list(tmp_path.glob("run*/best/bundle.json"))) == 20
    for _ in range(3):
        (tmp_path / "run/log/scalars.csv").unlink(missing_ok=True)
        two = [start("--resume", "run", "--train.save_every", "1") for _ in range(2)]
        said = [process.communicate(timeout=300) for process in two]
        codes = sorted(process.returncode for process in two)
        refused = [err for (_, err), process in zip(said, two, strict=True) if process.returncode]
        assert codes in ([0, 0], [0, 2]) and all("trains in it; wait until it ends" in err for err in refused), said


def test_the_current_folder_gets_its_number_beside_it(tmp_path, monkeypatch):
    (tmp_path / "work" / "in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert new_folder(Path()) == tmp_path / "work-2"
    monkeypatch.chdir(tmp_path / "work" / "in")
    assert new_folder(Path("..")) == tmp_path / "work-3"
    assert new_folder(Path()) == tmp_path / "work" / "in"
