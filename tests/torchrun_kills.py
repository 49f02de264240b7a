"""Kills processes of torchrun groups at random times; each group must end like one that nobody touched.

    python -m tests.torchrun_kills --kills 24 --seed 0

Two agents on one machine stand for two machines. What is killed: a rank; a machine (an agent with its rank); an agent
alone, whose rank is then an orphan; everything. Agents that ended are started again, as a scheduler does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from kill_kinds import amount
from torchrun_cases import LONGEST, Agents, ended, prepare, unlike

WHAT = ("rank", "machine", "agent", "all")
#: How often each is drawn.
SHARES = (4, 3, 2, 2)


def victims(agents: Agents, what: str, draw: random.Random) -> list[int]:
    """The processes to kill."""
    number = draw.choice(list(agents.agents))
    agent, ranks = agents.agents[number].pid, agents.ranks(number)
    if what == "rank":
        return ranks
    if what == "machine":
        return [agent, *ranks]
    if what == "agent":
        return [agent]
    return [pid for n in agents.agents for pid in (agents.agents[n].pid, *agents.ranks(n))]


def group(place: Path, run_id: str, kills: int, draw: random.Random, seen: Counter[str], say: Callable[[str], None]):
    """One run with so many kills at most; what it left."""
    agents = Agents(place, run_id)
    agents.start(0, 1)
    try:
        for _ in range(kills):
            before, until = amount(place / "run"), time.monotonic() + LONGEST
            late = draw.random() < 0.75
            while late and amount(place / "run") <= before and time.monotonic() < until:
                if all(agent.poll() == 0 for agent in agents.agents.values()):
                    break
                agents.start(*[n for n, agent in agents.agents.items() if agent.poll()])
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 4 if late else 25))
            if all(agent.poll() is not None for agent in agents.agents.values()):
                break
            what = draw.choices(WHAT, SHARES)[0]
            done = 0
            for pid in victims(agents, what, draw):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    done += 1
            if not done:
                continue
            saved = (place / "run/last/state.safetensors").is_file()
            seen[f"{what}, {'after' if saved else 'before'} a checkpoint"] += 1
            say(f"{run_id}: killed {what} ({done} processes), saved: {saved}")
            time.sleep(0.3)
            agents.start(*[n for n, agent in agents.agents.items() if agent.poll()])
        agents.wait(again=True)
        until = time.monotonic() + 60
        while (left := agents.left()) and time.monotonic() < until:
            time.sleep(0.5)
        assert not left, f"{run_id}: processes are left: {left}"
        assert not (place / "run-2").exists(), f"{run_id}: began another folder"
        return ended(place)
    finally:
        agents.close()


def kill(kills: int, seed: int, say: Callable[[str], None]) -> tuple[Counter[str], int, list[str]]:
    """Kill so many times: what was killed, runs that ended bit-equal, and what was not as it must be."""
    draw, seen, equal, faults = random.Random(seed), Counter[str](), 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="torchrun") as folder:
        place = prepare(Path(folder))
        start = time.monotonic()
        whole: dict[str, Any] = group(place, f"whole-{os.getpid()}", 0, draw, seen, say)
        say(f"undisturbed: {time.monotonic() - start:.0f} s")
        for session in range(kills):
            if (missing := kills - seen.total()) <= 0:
                break
            shutil.rmtree(place / "run")
            try:
                found = group(place, f"run{session}-{os.getpid()}", min(missing, 4), draw, seen, say)
                odd = unlike(found, whole)
            except AssertionError as error:
                odd = [str(error)]
            equal += not odd
            faults += [f"session {session}: {line}" for line in odd]
            say(f"session {session}: {odd or 'bit-equal'}; {seen.total()} kills, {time.monotonic() - start:.0f} s")
            for extra in place.glob("run-*"):
                shutil.rmtree(extra)
            (place / "run").mkdir(exist_ok=True)
    return seen, equal, faults


def main() -> int:
    """Run from the command line; 1 if anything was not as it must be."""
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--kills", type=int, default=24)
    read.add_argument("--seed", type=int, default=0)
    given = read.parse_args()
    seen, equal, faults = kill(given.kills, given.seed, lambda line: print(line, file=sys.stderr, flush=True))
    for what, count in sorted(seen.items()):
        print(f"{what}: {count}")
    print(f"{seen.total()} kills; runs that ended bit-equal: {equal}; faults: {len(faults)}")
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
