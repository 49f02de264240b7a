"""A package that is not ours: files on a path of their own, named in the entry points of a real distribution."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def installed(site: Path, points: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process in which a distribution in ``site`` offers classes.

    Args:
        site: a folder, for the distribution's description and files of its own.
        points: "kind Name" → "module:Name", the module in ``site`` or in ``tests``.
    """
    info = site / "not_garnish-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: not-garnish\nVersion: 1.0\n")
    groups: dict[str, list[str]] = {}
    for point, where in points.items():
        kind, name = point.split()
        groups.setdefault(kind, []).append(f"{name} = {where}\n")
    (info / "entry_points.txt").write_text("".join(f"[garnish.{k}]\n{''.join(lines)}" for k, lines in groups.items()))
    path = os.pathsep.join(map(str, (site, ROOT / "src", ROOT / "tests")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(environment: Mapping[str, str], *args: str) -> str:
    """What a Python process prints; fails where it does."""
    done = subprocess.run([sys.executable, *args], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def conformance(environment: Mapping[str, str], chosen: str, *words: str) -> Sequence[str]:
    """Names of the tests that pass in our own conformance suites, as they lie there; none may fail."""
    suite = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", str(ROOT / "tests" / "conformance")]
    found = re.findall(r"::(\S+) (PASSED|SKIPPED)", run(environment, *suite, "-k", chosen, *words))
    assert all(how == "PASSED" for _, how in found)
    return [name for name, _ in found]
