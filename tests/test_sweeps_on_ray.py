"""Sweeps on a real Ray cluster of several nodes, on this machine: the results of ``--jobs``, whatever dies."""

from __future__ import annotations

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

pytest.importorskip("ray", reason="pip install 'garnish[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

GIVEN = {"references": ["frozen", "single"], "seeds": 3}


@pytest.fixture(scope="module")
def by_jobs(tmp_path_factory, mit_weights):
    return run(tmp_path_factory.mktemp("jobs") / "report", mit_weights, jobs=2, **GIVEN)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head that takes no runs, and two nodes with room for one run each."""
    from ray.cluster_utils import Cluster

    made = again(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}))
    for _ in range(2):
        again(lambda: made.add_node(num_cpus=1))
    yield made
    made.shutdown()


def again(begin, times: int = 4):
    """Ray gives a node 30 seconds to begin, which a machine with other work may not do."""
    for left in reversed(range(times)):
        try:
            return begin()
        except Exception:
            if not left:
                raise
    raise AssertionError


def start(cluster, folder: Path, weights: Path, **given) -> subprocess.Popen:
    """A driver in a process of its own."""
    script = Path(__file__).with_name("cluster_cases.py")
    env = os.environ | {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": cluster.address}
    words = [sys.executable, str(script), "ray:auto", str(folder), str(weights), json.dumps(GIVEN | given)]
    return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: subprocess.Popen) -> str:
    said = process.communicate(timeout=900)[1].decode()
    assert process.returncode == 0, said[-3000:]
    return said


def results(folder: Path):
    return without_times(json.loads((folder / "results.json").read_text("utf-8")))


def amount(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def said_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def raylet(node) -> int:
    return node.all_processes["raylet"][0].process.pid


def actors(cluster) -> list[int]:
    """Processes of the places for runs."""
    return [pid for node in cluster.worker_nodes for pid in children(raylet(node)) if "RunSlot" in said_name(pid)]


def trainers(cluster) -> list[int]:
    """Processes that train."""
    found = [pid for actor in actors(cluster) for pid in children(actor)]
    return [pid for pid in found if "spawn_main" in said_name(pid)]


def wait_for(condition, seconds: float = 300.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def test_results_are_those_of_jobs(cluster, tmp_path, mit_weights, by_jobs):
    folder = tmp_path / "report"
    said = finish(start(cluster, folder, mit_weights))
    assert results(folder) == without_times(by_jobs)
    assert "2 nodes, room for 2 runs at once, each with 1 CPU, 1 thread, no GPU" in said


def test_sigterm_ends_with_checkpoints_and_143(cluster, tmp_path, mit_weights, by_jobs):
    folder = tmp_path / "report"
    process = start(cluster, folder, mit_weights)
    wait_for(lambda: list(folder.rglob("state.safetensors")))
    running = trainers(cluster)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 143, said[-2000:]
    assert running and not any("spawn_main" in said_name(pid) for pid in running)
    assert "the same command continues" in said and "Traceback" not in said
    finish(start(cluster, folder, mit_weights))
    assert results(folder) == without_times(by_jobs)


def test_a_process_that_keeps_dying_has_failed(cluster, tmp_path, mit_weights):
    folder = tmp_path / "report"
    given = {"references": ["frozen"], "seeds": 1, "rates": [1e-3], "jobs": 1}
    process = start(cluster, folder, mit_weights, train={"steps": 100_000, "save_every": 50_000}, **given)
    killed: set[int] = set()
    while len(killed) < 6:  # two arms
        wait_for(lambda: list(folder.rglob("log.txt")))
        pid = wait_for(lambda: [pid for pid in trainers(cluster) if pid not in killed and is_training(pid, folder)])[0]
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 1 or process.returncode == 0, said[-2000:]
    failed = [json.loads(file.read_text("utf-8"))["reason"] for file in folder.rglob("failed.json")]
    assert failed == ["its process ended by signal 9; most likely out of memory (3 times at the same point)"] * 2


def is_training(pid: int, folder: Path) -> bool:
    """Whether a process holds the log of a run open."""
    try:
        opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(name.startswith(str(folder)) and name.endswith("log.txt") for name in opened)


def test_twenty_and_more_kills(cluster, tmp_path, mit_weights, by_jobs):
    folder, draw = tmp_path / "report", random.Random(26)
    # of processes two in the life of a driver, for three at one point are the run's own fault
    order = []
    for _ in range(5):
        life = ["process", "process", "actor", draw.choice(["actor", "node"]), "node"]
        draw.shuffle(life)
        order += [*life, "driver"]
    process, done = start(cluster, folder, mit_weights), []
    for kind in order:
        before = amount(folder)
        until = time.monotonic() + 60
        more = draw.randrange(1, 10)
        while time.monotonic() < until and process.poll() is None and amount(folder) < before + more:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        if process.poll() is not None:
            break
        if kill(kind, cluster, process, draw):
            done.append(kind)
        if kind == "driver":
            process.communicate()
            process = start(cluster, folder, mit_weights)
    finish(process)
    print(f"{len(done)} kills: {done}")
    assert len(done) >= 20 and set(done) == {"process", "actor", "node", "driver"}
    assert results(folder) == without_times(by_jobs)
    assert not list(folder.rglob("state.safetensors")) and not list(folder.rglob("failed.json"))
    logs = [file.read_text("utf-8") for file in folder.rglob("log.txt")]
    assert logs and all(log.count("finished after") <= 1 for log in logs), "no run was done twice"


def kill(kind: str, cluster, process: subprocess.Popen, draw: random.Random) -> bool:
    """Kill something of a kind; whether there was any."""
    if kind == "driver":
        process.kill()
        return True
    if kind == "node":
        cluster.remove_node(draw.choice(cluster.worker_nodes), allow_graceful=False)
        again(lambda: cluster.add_node(num_cpus=1))
        return True
    there = trainers(cluster) if kind == "process" else actors(cluster)
    if there:
        os.kill(draw.choice(there), signal.SIGKILL)
    return bool(there)
