"""A minute of fuzzing with fixed seeds, ten thousand inputs under ``slow``, and faults on purpose, which it must find.

Each run is a process of its own, since it forks, and its audit hooks stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import garnish

from .fence import is_possible
from .surfaces.planted import FAULTS

pytestmark = pytest.mark.skipif(not is_possible(), reason="this kernel has no Landlock, which fences the fuzzer in")

ROOT = Path(__file__).parents[2]


def fuzzed(*words: str) -> subprocess.CompletedProcess[str]:
    """The fuzzer's process."""
    paths = [str(Path(garnish.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.fuzz", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_every_planted_fault_is_found(tmp_path):
    words = ["--surface", "planted", "--inputs", str(3 * len(FAULTS)), "--limit", "0.5", "--memory", "0.0625"]
    told = fuzzed(*words, "--json", str(tmp_path / "verdicts"))
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts").read_text().splitlines()]
    found = {each["what"].split(": ")[1]: each["kind"] for each in verdicts if each["number"] % 3 == 0}
    assert found == {name: kind for name, (_, kind) in FAULTS.items()}, told.stderr
    others = {each["kind"] for each in verdicts if each["number"] % 3}
    assert told.returncode == 1 and others == {"accepted"}, "the inputs between the faults are sound"
    again = json.loads(fuzzed("--one", "planted:0:1").stdout)
    assert {**again[0], "seconds": 0} == {**verdicts[1], "seconds": 0}, "a number gives the same input again"
    assert f"| planted | {3 * len(FAULTS)} |" in told.stdout and "--one planted:0:0" in told.stdout


def test_a_minute_of_it():
    told = fuzzed(
        "--inputs", "360", "--seed", "0", "--limit", "60"
    )  # seconds of the clock, on a machine that may be busy
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}"


@pytest.mark.slow
def test_ten_thousand():
    told = fuzzed("--inputs", "10000", "--seed", "1")
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}"
