"""Kills workers, nodes and the command of a bulk prediction at random moments, goes on, and looks at what comes of it.

    python -m tests.bulk_kills --kills 24 --seed 0 --place /tmp/kills

A cluster of three nodes on this machine: the head, without workers, and two nodes, which may die. Whatever dies, the
same command is typed again until it ends; then its files are those of ``garnish predict``, and the manifest counts
every picture once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import psutil

from bulk_cases import maps_of, put_pictures, save_small

#: Seconds after which a command that should have ended counts as hanging.
LONGEST = 900
KINDS = ("worker", "worker", "worker", "node", "command")


def again(start: Callable[[], Any]) -> Any:
    """Start a node: Ray waits half a minute for one, which a busy machine may not give it."""
    for _ in range(9):
        try:
            return start()
        except Exception as error:  # a bare one
            print(f"a node did not start: {str(error)[:100]}", file=sys.stderr, flush=True)
    return start()


def no_haste() -> None:
    """Choose the ports of nodes' agents ahead: for those that they choose Ray waits 15 seconds, too few if busy."""
    from ray._private import services

    start = services.start_raylet

    def start_raylet(*words: Any, **named: Any) -> Any:
        ports, node, session = agent_ports(), words[2], Path(words[11])
        for name, port in ports.items():
            (session / f"{name}_{node}").write_text(str(port))
        return start(*words, **{**named, **ports})

    services.start_raylet = start_raylet


def agent_ports() -> dict[str, int]:
    """A free port for each kind of a node's agents."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: one.getsockname()[1] for name, one in zip(names, opened, strict=True)}
    for one in opened:
        one.close()
    return ports


class BulkKills:
    """Runs of one command on one cluster.

    Args:
        place: folder for everything, also Ray's own files; its name must be short.
        seed: of the moments.
    """

    def __init__(self, place: Path, seed: int, pictures: int = 240) -> None:
        from ray.cluster_utils import Cluster

        no_haste()
        self.place, self.draw, self.kills = place, random.Random(seed), Counter[str]()
        self.count, self.broken = pictures, 3
        self.bundle = save_small(place / "bundle")
        put_pictures(place / "in", pictures, broken=self.broken, size=(96, 128))
        self.log = (place / "log.txt").open("ab")
        words = ["predict", self.bundle, str(place / "in"), "--out", str(place / "plain")]
        code = subprocess.run([sys.executable, "-m", "garnish", *words], stdout=self.log, stderr=self.log).returncode
        assert code == 1, "three pictures are damaged"
        self.truth = maps_of(place / "plain")
        head = {"num_cpus": 0, "temp_dir": str(place / "r"), "include_dashboard": False}
        self.cluster = again(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.nodes = [again(self.added) for _ in range(2)]

    def added(self) -> Any:
        """One more node, with room for one worker."""
        return self.cluster.add_node(num_cpus=1)

    def close(self) -> None:
        """End the cluster, and what is left of nodes that did not start."""
        self.cluster.shutdown()
        for child in psutil.Process().children(recursive=True):
            if str(self.place) in " ".join(child.cmdline()):
                child.kill()
        self.log.close()

    def started(self, out: Path) -> subprocess.Popen[bytes]:
        """The command."""
        words = ["predict", "--on", "ray:auto", self.bundle, str(self.place / "in"), "--out", str(out)]
        env = {**os.environ, "RAY_ADDRESS": self.cluster.address, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen([sys.executable, "-m", "garnish", *words], stdout=self.log, stderr=self.log, env=env)

    def workers(self) -> list[psutil.Process]:
        """The processes of Ray Data's actors on the nodes of this cluster."""
        found = []
        for node in self.nodes:
            (raylet,) = [info.process.pid for info in node.all_processes["raylet"]]
            try:
                below = psutil.Process(raylet).children(recursive=True)
                found += [one for one in below if "BulkWorker" in " ".join(one.cmdline())]
            except psutil.Error:
                continue
        return found

    def kill(self, kind: str, command: subprocess.Popen[bytes]) -> str | None:
        """Kill something; returns what, or None where there was nothing of it."""
        if kind == "command":
            command.kill()
            return kind
        if kind == "node":
            node = self.draw.choice(self.nodes)
            self.nodes.remove(node)
            self.cluster.remove_node(node, allow_graceful=False)
            self.nodes.append(again(self.added))
            return kind
        workers = self.workers()
        if not workers:
            return None
        self.draw.choice(workers).kill()
        return kind

    def session(self, kills: int, kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
        """One output folder: so many kills, then the command until it ends; what came of it."""
        out, done, began = self.place / "out", 0, 0
        shutil.rmtree(out, ignore_errors=True)
        while True:
            command, since = self.started(out), time.monotonic()
            began += 1
            while command.poll() is None and done < kills:
                before = self.parts(out)
                while command.poll() is None and self.parts(out) == before and time.monotonic() - since < LONGEST:
                    time.sleep(0.05)  # a block is finished: the next is under way
                time.sleep(self.draw.uniform(0, 1.0))
                if command.poll() is None and (what := self.kill(self.draw.choice(kinds), command)) is not None:
                    done += 1
                    self.kills[what] += 1
            try:
                code = command.wait(LONGEST)
            except subprocess.TimeoutExpired:
                command.kill()
                code = 99
            if code != -signal.SIGKILL:
                return {**self.looked_at(out, code), "kills": done, "commands": began}

    def parts(self, out: Path) -> int:
        """How many there are."""
        return len(list((out / ".garnish-predict/parts").glob("*.jsonl")))

    def looked_at(self, out: Path, code: int) -> dict[str, Any]:
        """What is wrong with an output; an empty list of faults: nothing."""
        faults = [] if code == 1 else [f"exit code {code}"]
        found = maps_of(out)
        faults += [f"{name} is missing" for name in self.truth.keys() - found.keys()]
        faults += [f"{name} is too many" for name in found.keys() - self.truth.keys()]
        faults += [f"{name} differs" for name, data in self.truth.items() if found.get(name, data) != data]
        file = out / ".garnish-predict/manifest.json"
        manifest = json.loads(file.read_bytes()) if file.is_file() else {}
        counts = (manifest.get("pictures"), manifest.get("failed"))
        if counts != (self.count + self.broken, self.broken):
            faults.append(f"the manifest counts {counts}")
        elif manifest["predicted"] + manifest["left_out"] + manifest["failed"] != manifest["pictures"]:
            faults.append("counts do not add up")
        elif manifest["bytes"] != sum(map(len, self.truth.values())):
            faults.append("sizes do not add up")
        return {"faults": faults, "predicted": manifest.get("predicted"), "left_out": manifest.get("left_out")}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kills", type=int, default=24)
    words.add_argument("--each", type=int, default=6, help="kills of one output folder")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--pictures", type=int, default=240)
    words.add_argument("--place", type=Path, required=True)
    given = words.parse_args()
    given.place.mkdir(parents=True, exist_ok=True)
    harness = BulkKills(given.place, given.seed, given.pictures)
    faults = 0
    try:
        while sum(harness.kills.values()) < given.kills:
            found = harness.session(min(given.each, given.kills - sum(harness.kills.values())))
            faults += len(found["faults"])
            print(json.dumps({**found, "so far": dict(harness.kills)}), flush=True)
    finally:
        harness.close()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
