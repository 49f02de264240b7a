"""Agents of torchrun on this machine, each standing for a machine of its own, with the processes that they start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from kill_kinds import KINDS, children, contents, differing

#: A run of seconds: dropout, batch norm, three evaluations, a checkpoint a step.
RECIPE = """\
backbone: garnish_b0
adapter: {name: LoRA, rank: 2, dropout: 0.1}
head: {name: SegFormerHead, channels: 8}
tasks: [seg]
data: {name: scenes, train: 8, val: 3, test: 2, size: 32}
train: {steps: 12, batch_size: 2, eval_every: 4, save_every: 1, log: [csv], log_every: 1, lr: 1.0e-3, accelerator: cpu}
"""
#: Seconds after which something that should have happened counts as hanging.
LONGEST = 1800.0
TRAIN = KINDS["train"]


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def environment() -> dict[str, str]:
    """That of a shell: nothing of a torchrun or scheduler that the tests may run in."""
    odd = ("TORCHELASTIC", "SLURM", "GROUP_", "LOCAL_", "RANK", "WORLD_SIZE", "MASTER_", "ROLE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(odd)} | {"OMP_NUM_THREADS": "1"}


class Agents:
    """``torchrun`` once for each machine.

    Args:
        place: the current folder of all of them, with ``recipe.yaml``.
        run_id: ``--rdzv-id``.
        nodes: number of machines, as ``--nnodes`` takes it.
        words: more of the command line of ``garnish train``.
    """

    def __init__(self, place: Path, run_id: str, *, nodes: str = "2", restarts: int = 50, words: tuple[str, ...] = ()):
        self.place, self.run_id, self.nodes, self.restarts, self.words = place, run_id, nodes, restarts, words
        self.port = free_port()
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self.log = place / f"{run_id}.txt"

    def start(self, *numbers: int) -> None:
        """Start the agents of these machines."""
        if not any(agent.poll() is None for agent in self.agents.values()):
            self.port = free_port()
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", self.nodes, "--nproc-per-node", "1"),
            *("--max-restarts", str(self.restarts), "--rdzv-backend", "c10d", "--rdzv-id", self.run_id),
            *("--rdzv-endpoint", f"localhost:{self.port}", "--rdzv-conf", "join_timeout=300,last_call_timeout=2"),
            *("-m", "garnish", "train", "--config", "recipe.yaml", "--out", "run", "--quiet", *self.words),
        ]
        for number in numbers:
            with self.log.open("a") as log:
                self.agents[number] = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=self.place, env=environment(), start_new_session=True
                )

    def ranks(self, number: int) -> list[int]:
        """The processes that train, of one machine."""
        return children(self.agents[number].pid)

    def wait(self, *, again: bool = False, longest: float = LONGEST) -> dict[int, int]:
        """The exit code of each agent; ``again``: as a scheduler does, one that failed is started again."""
        until = time.monotonic() + longest
        while time.monotonic() < until:
            codes = {number: agent.poll() for number, agent in self.agents.items()}
            if again and (failed := [number for number, code in codes.items() if code]):
                self.start(*failed)
            elif all(code is not None for code in codes.values()):
                return {number: int(code or 0) for number, code in codes.items()}
            time.sleep(0.2)
        raise AssertionError(f"{self.run_id}: hangs: {self.log.read_text()[-3000:]}")

    def wait_for(self, file: str, longest: float = LONGEST) -> None:
        """Wait until there is a file in the folder of the run."""
        until = time.monotonic() + longest
        while not (self.place / "run" / file).exists():
            assert time.monotonic() < until, f"no {file}: {self.log.read_text()[-3000:]}"
            assert any(agent.poll() is None for agent in self.agents.values()), self.log.read_text()[-3000:]
            time.sleep(0.05)

    def left(self) -> list[int]:
        """Processes of this group that still live."""
        mark, found = f"TORCHELASTIC_RUN_ID={self.run_id}".encode(), []
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in file.read_bytes().split(b"\0") and file.with_name("stat").read_text().split()[2] != "Z":
                    found.append(int(file.parent.name))
        return found

    def close(self) -> None:
        """End everything that is left."""
        for agent in self.agents.values():
            with contextlib.suppress(ProcessLookupError):
                agent.kill()
            agent.wait()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def prepare(place: Path) -> Path:
    """Write the recipe; the folder."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "recipe.yaml").write_text(RECIPE)
    return place


def ended(place: Path) -> dict[str, object]:
    """All that a finished run left, without what is of the clock."""
    return contents(TRAIN, place / "run")


def unlike(found: dict[str, object], whole: dict[str, object]) -> list[str]:
    """Where two runs differ."""
    return differing(found, whole)
