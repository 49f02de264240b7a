"""Kills ``garnish train`` and ``garnish compare`` at many moments, lets them go on, and looks at what comes of it.

    python -m tests.kills --kills 200 --seed 0

Most kills come before a drawn change of a file, in processes that are forked after all imports; the others at random
times of fresh processes, imports among them, with two processes a run and with two runs at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from kill_kinds import KINDS, RECIPE, Kind, amount, children, contents, differing
from kill_points import main_with_kill

#: Seconds after which a process that should have ended counts as hanging.
LONGEST = 900
#: Of 200 kills.
SHARES = {
    "train": 100, "compare": 74, "train, fresh": 8, "train, 2 processes": 6, "compare, fresh": 6, "compare --jobs 2": 6,
}  # fmt: skip


@dataclass
class Row:
    """What the kills of one kind came to."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    equal: int = 0
    anew: int = 0
    bundles: int = 0
    faults: list[str] = field(default_factory=list)


class Harness:
    """Runs of each kind, one after the other in the same folder, whose name is in what they write."""

    def __init__(self, place: Path, seed: int, say: Callable[[str], None]) -> None:
        self.place, self.say, self.draw = place, say, random.Random(seed)
        self.rows: dict[str, Row] = {}
        self.whole: dict[str, Any] = {}
        self.changes: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.recipe, self.out = place / "recipe.yaml", place / "run"
        self.log = place / "log.txt"

    # ---- one session ------------------------------------------------------------------------------------------------

    def words(self, kind: Kind, out: Path) -> list[str]:
        """The command line that begins a run, or goes on with one."""
        if kind.is_train and (out / "last/state.safetensors").is_file():
            return ["train", "--resume", str(out), *kind.words[1:], "--quiet"]
        return [*kind.words, "--config", str(self.recipe), "--out", str(out), "--quiet"]

    def forked(self, kind: Kind, out: Path, at: int = 0, number: int = signal.SIGKILL, *, torn: bool = False) -> int:
        """Run in a child of this process; its exit code, negative for a signal."""
        return self.in_child(self.words(kind, out), out, at, number, torn=torn)

    def in_child(
        self, words: list[str], out: Path, at: int = 0, number: int = signal.SIGKILL, *, torn: bool = False
    ) -> int:
        """Run a command line in a child of this process, with a kill at a change in ``out``; the exit code."""
        child = os.fork()
        if not child:
            code = 70
            with contextlib.suppress(BaseException), self.log.open("a") as log:
                os.chdir(self.place)  # as processes of their own: it is in args.yaml
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                code = main_with_kill(words, out, at, number, torn, self.place / "changes")
            os._exit(code)
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return 99

    def fresh(self, kind: Kind, out: Path, number: int | None = None, *, late: bool = False) -> int | None:
        """Run in processes of their own; a signal comes at a random time, ``late`` after the next save.

        Returns:
            The exit code; None: it ended before the signal.
        """
        words = [sys.executable, "-m", "garnish", *self.words(kind, out)]
        before = amount(out)
        with self.log.open("a") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, cwd=self.place)
            try:
                if number is None:
                    return process.wait(LONGEST)
                until = time.monotonic() + LONGEST
                while late and process.poll() is None and amount(out) <= before and time.monotonic() < until:
                    time.sleep(0.01)
                whole = self.seconds[kind.name]
                time.sleep(self.draw.uniform(0, 0.4 * whole if late else 0.7 * whole))
                if process.poll() is not None:
                    return None
                others = children(process.pid) if number == signal.SIGKILL else []
                victim = self.draw.choice(others) if others and self.draw.random() < 0.3 else process.pid
                os.kill(victim, number)
                return process.wait(LONGEST)
            except subprocess.TimeoutExpired:
                return 99
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    # ---- many -------------------------------------------------------------------------------------------------------

    def prepare(self, names: list[str], imports: float = 0.0) -> None:
        """The recipe, and each kind undisturbed; ``imports``: seconds that those take."""
        from comparing_cases import OPTIONS, write_weights

        weights = write_weights(self.place / "trunk.safetensors")
        self.recipe.write_text(RECIPE.format(weights=weights, options=json.dumps(OPTIONS)))
        for name in dict.fromkeys([*(KINDS[name].like for name in names), *names]):
            kind, out, start = KINDS[name], self.out, time.monotonic()
            self.rows[name] = Row()
            if kind.like != name:  # however many processes: one result
                self.whole[name], self.seconds[name] = self.whole[kind.like], self.seconds[kind.like] + imports
                continue
            code = self.forked(kind, out) if kind.forks else self.fresh(kind, out)
            assert code == 0, f"{name}: the undisturbed run ends with {code}: {self.log.read_text()[-2000:]}"
            self.seconds[name] = time.monotonic() - start
            self.whole[name] = contents(kind, out)
            if kind.forks:
                self.changes[name] = int((self.place / "changes").read_text())
            shutil.rmtree(out)
            self.say(f"{name}: {self.seconds[name]:.1f} s, {self.changes.get(name, 0)} changes of files")

    def session(self, name: str, most: int) -> None:
        """A run that is killed up to ``most`` times and then goes on to its end."""
        kind, row, draw, out = KINDS[name], self.rows[name], self.draw, self.out
        shutil.rmtree(out, ignore_errors=True)
        row.runs += 1
        told: list[str] = []
        steps: dict[Path, int] = {}
        for _ in range(most):
            number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            if kind.forks:
                at = draw.randint(1, max(self.changes[name] // (1 if kind.is_train else 3), 1))
                torn = draw.random() < 0.3
                code: int | None = self.forked(kind, out, at, number, torn=torn)
                where = f"change {at}{' torn' if torn else ''}"
                came = code != 0
            else:
                late = draw.random() < 0.6
                code = self.fresh(kind, out, number, late=late)
                where, came = "after a save" if late else "any time", code is not None
            told.append(f"{signal.Signals(number).name} {where}: {code}")
            if not came:
                break
            row.kills[signal.Signals(number).name] += 1
            # of several processes one was killed: the others end in an error of their own
            fine = {-signal.SIGKILL} if number == signal.SIGKILL else {128 + signal.SIGTERM, -signal.SIGTERM}
            if code not in (fine if kind.forks else fine | {1, 2, 0}):
                row.faults.append(f"{name}: ended with {code}: {told}")
            row.bundles += self.check_bundles(kind, out, row, told)
            steps = self.check_states(kind, out, steps, row, told)
            if kind.is_train and not steps and out.exists():  # killed before the first save
                row.anew += 1
                shutil.rmtree(out)
        code = self.forked(kind, out) if kind.forks else self.fresh(kind, out)
        if code != 0:
            row.faults.append(f"{name}: goes on with {code}: {told}: {self.log.read_text()[-1500:]}")
            return
        found = contents(kind, out)
        odd = differing(found, self.whole[name])
        if odd:
            row.faults.append(f"{name}: {', '.join(odd)} differ: {told}")
            return
        row.equal += 1

    def check_states(
        self, kind: Kind, out: Path, before: dict[Path, int], row: Row, told: list[str]
    ) -> dict[Path, int]:
        """Checkpoint → its step after a kill; each reads, and none is gone or back at an earlier step."""
        from garnish.bundles.checkpoint import load_state

        found: dict[Path, int] = {}
        for file in out.rglob("state.safetensors"):
            try:
                found[file] = load_state(file)[1]["state"]["step"]
            except Exception as error:
                row.faults.append(f"{kind.name}: {error}: {told}")
        for file in out.rglob("earlier.safetensors"):
            if not file.with_name("state.safetensors").exists():
                row.faults.append(f"{kind.name}: {file} is alone: {told}")
        for file, step in before.items():
            done = not kind.is_train and (file.parents[2] / "result.json").is_file()  # then it is removed
            if found.get(file, -1) < step and not done:
                row.faults.append(f"{kind.name}: {file} of step {step} is now {found.get(file, 'gone')}: {told}")
        return found

    def check_bundles(self, kind: Kind, out: Path, row: Row, told: list[str]) -> int:
        """Number of bundles that exist after a kill; each must read."""
        from garnish.bundles.bundle_json import read_bundle_json
        from garnish.bundles.tensors import read_tensors, weights_of
        from garnish.files.atomic import present

        folders = [out] if kind.is_train else [run / "fit" for run in (out / ".store/runs").glob("*")]
        bundles = [found for folder in folders if (found := present(folder / "best")).is_dir()]
        for bundle in bundles:
            try:
                read_tensors(weights_of(bundle, read_bundle_json(bundle)), str(bundle))
            except Exception as error:
                row.faults.append(f"{kind.name}: {bundle}: {error}: {told}")
        return len(bundles)


def table(rows: dict[str, Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| command | SIGKILL | SIGTERM | begun anew | bundles read after a kill | runs | ended bit-equal | faults |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        cells = [
            row.kills["SIGKILL"],
            row.kills["SIGTERM"],
            row.anew,
            row.bundles,
            row.runs,
            row.equal,
            len(row.faults),
        ]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def kill(kills: int, seed: int, names: list[str], say: Callable[[str], None]) -> dict[str, Row]:
    """Kill so many times; what came of it by kind."""
    start = time.monotonic()
    import torch

    import garnish.comparing.compare  # what children would import otherwise
    import garnish.training.fit  # noqa: F401

    torch.set_num_threads(1)
    whole, imports = sum(SHARES[name] for name in names), time.monotonic() - start
    with tempfile.TemporaryDirectory(prefix="kills") as place:
        harness = Harness(Path(place), seed, say)
        harness.prepare(names, imports)
        for name in names:
            wanted = max(round(kills * SHARES[name] / whole), 1)
            while (left := wanted - sum(harness.rows[name].kills.values())) > 0 and len(harness.rows[name].faults) < 5:
                harness.session(name, min(left, 4))
                so_far = sum(harness.rows[name].kills.values())
                say(f"{name}: {so_far} of {wanted} kills, {time.monotonic() - start:.0f} s")
            say(f"{name}: {harness.rows[name]}")
        return {name: harness.rows[name] for name in names}


def main() -> int:
    """Run from the command line; 1 if anything was not as it must be."""
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--kills", type=int, default=200)
    read.add_argument("--seed", type=int, default=0)
    read.add_argument("--only", action="append", choices=list(KINDS), help="of these kinds")
    given = read.parse_args()
    start = time.monotonic()
    rows = kill(
        given.kills, given.seed, given.only or list(KINDS), lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(table(rows))
    total = sum(sum(row.kills.values()) for row in rows.values())
    print(f"\n{total} kills in {(time.monotonic() - start) / 60:.1f} minutes, seed {given.seed}")
    faults = [fault for row in rows.values() for fault in row.faults]
    print("\n".join(faults), file=sys.stderr)
    short = any(row.equal < row.runs for row in rows.values())
    return 1 if faults or short else 0


if __name__ == "__main__":
    sys.exit(main())
