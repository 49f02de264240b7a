"""Runs that are killed before drawn changes of their files go on to the same end; a few here, two hundred by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from garnish.files.atomic import write_file
from kill_points import KillPoints


def harness(module: str, *words: str) -> str:
    told = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_a_few_kills_of_a_run():
    told = harness("tests.kills", "--kills", "5", "--seed", "1", "--only", "train")
    assert "5 kills in " in told, told


@pytest.mark.slow
def test_kills_of_every_kind():
    assert "40 kills in " in harness("tests.kills", "--kills", "40", "--seed", "2")


@pytest.mark.slow
def test_flipped_bits_are_noticed():
    assert "| run: state.safetensors |" in harness("tests.flips", "--flips", "60", "--seed", "2")


def killed(folder: Path, at: int, *, torn: bool = False) -> int:
    """Kill a process before the ``at``-th change while it replaces a file; the signal that ended it, or 0."""
    child = os.fork()
    if not child:
        KillPoints(folder, at, torn=torn)
        write_file(folder / "a", b"new" * 1000)
        os._exit(0)
    return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_every_change_of_a_file_is_a_place_to_be_killed(tmp_path):
    """Folder, way cleared, new file opened, synced, renamed, folder synced: each of these may not come."""
    seen = []
    for at in range(1, 8):
        (tmp_path / "a").write_bytes(b"old")
        killed_by = killed(tmp_path, at, torn=at == 4)
        left = tmp_path / ".a.writing"
        seen.append((killed_by, (tmp_path / "a").read_bytes()[:3], left.stat().st_size if left.exists() else None))
        left.unlink(missing_ok=True)
    nine = int(signal.SIGKILL)
    assert seen == [
        (nine, b"old", None),
        (nine, b"old", None),
        (nine, b"old", None),
        (nine, b"old", 1500),  # cut in two
        (nine, b"old", 3000),
        (nine, b"new", None),
        (0, b"new", None),
    ]
