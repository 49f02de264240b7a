"""Sweeps on a cluster: what is refused before the first run, and what is started again how often, with a Ray that
says what the test tells it; tests/test_sweeps_on_ray.py has the real one."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from comparing_cases import conditions, trained
from garnish.cluster import ray_crew
from garnish.cluster.connecting import connected, ray_address
from garnish.cluster.losses import MOST_DEATHS, MOST_LOSSES
from garnish.cluster.ray_crew import RayCrew
from garnish.cluster.room_for_runs import PerRun, per_run
from garnish.cluster.run_slot import RunSlot
from garnish.cluster.same_material import Sent
from garnish.cluster.shared_folder import Needs, lacks, shown_to_nodes
from garnish.commands.compare import run as command
from garnish.comparing.outcomes import Failed
from garnish.comparing.schedule import Job, RunPlan
from garnish.comparing.typed_json import as_json
from garnish.comparing.workers import SweepFault
from garnish.errors import DataError, GarnishError, OptionError, WeightsError

EACH = PerRun(cpus=1, threads=1, gpus=0)
NEEDS = Needs(folder="/nowhere/.store", probe="x", versions={}, working_folder="/")


class NodeLost(Exception):
    """Stands for Ray's error of an actor that is gone."""

    actor_init_failed = False


class TaskFailed(Exception):
    cause = ValueError("no room")


class ToldRay:
    """A Ray whose actors answer from a list: a value, or an error."""

    def __init__(self, answers=(), nodes=((2, 0),)):
        self.answers, self.jobs, self.killed, self.asked = list(answers), [], [], []
        self.exceptions = SimpleNamespace(
            RayError=NodeLost, RayTaskError=TaskFailed, RayActorError=NodeLost, ObjectLostError=NodeLost
        )
        self.hosts = nodes

    def nodes(self):
        return [
            {"Alive": True, "NodeID": f"{i}", "Resources": {"CPU": cpus, "GPU": gpus}}
            for i, (cpus, gpus) in enumerate(self.hosts)
        ]

    def put(self, value):
        return value

    def remote(self, kind):
        return self

    def options(self, **given):
        self.asked.append(given)
        return SimpleNamespace(remote=self._actor)

    def _actor(self, *given):
        def do(job):
            self.jobs.append(pickle.loads(job))
            return self.answers.pop(0)

        return SimpleNamespace(
            do=SimpleNamespace(remote=do),
            placed=SimpleNamespace(remote=lambda: ""),
            stop=SimpleNamespace(remote=lambda: "stopped"),
        )

    def wait(self, refs, num_returns=1, timeout=None):
        return list(refs), []

    def get(self, ref):
        if isinstance(ref, Exception):
            raise ref
        return ref

    def kill(self, actor):
        self.killed.append(actor)


@pytest.fixture
def shared(tmp_path, mit_weights):
    return conditions(tmp_path / "report", mit_weights, references=["frozen"], seeds=1)


def first_job(shared) -> Job:
    return next(RunPlan(shared).jobs())


def crew_of(ray, shared, said=None, jobs=1):
    return RayCrew(ray, shared, NEEDS, EACH, jobs, (said if said is not None else []).append)


def until_done(crew):
    for _ in range(100):
        if done := crew.wait():
            return done
    raise AssertionError("it goes on for ever")


def died(code):
    return "ended", code


def done(outcome, processor="AVX2"):
    return "done", pickle.dumps(outcome), processor


def test_a_run_whose_node_is_lost_goes_on(shared):
    job, said = first_job(shared), []
    outcome = trained([(1, 0.5)], job.run)
    ray = ToldRay([NodeLost(), NodeLost(), done(outcome)])
    crew = crew_of(ray, shared, said)
    crew.start(job)
    assert not crew.is_free()
    assert until_done(crew) == [(job, outcome)]
    assert ray.jobs == [job] * 3 and len(ray.asked) == 3, "a new place each time"
    assert crew.is_free() and len(ray.killed) == 2
    sent = pickle.loads(crew._sent).conditions
    assert sent.store.folder.as_posix() == NEEDS.folder and sent.out.is_absolute()
    assert len(said) == 2 and all(str(job.run) in line and "lost" in line for line in said)


@pytest.mark.parametrize(
    ("answer", "most", "reason"),
    [
        (lambda: died(-9), MOST_DEATHS, "by signal 9; most likely out of memory"),
        (lambda: died(3), MOST_DEATHS, "with code 3"),
        (NodeLost, MOST_LOSSES, "was lost"),
        (lambda: died(143), MOST_LOSSES, "was lost"),  # its node asked it to stop
    ],
)
def test_what_keeps_ending_has_failed(shared, answer, most, reason):
    job = first_job(shared)
    ray = ToldRay([answer() for _ in range(50)])
    crew = crew_of(ray, shared)
    crew.start(job)
    [(of, outcome)] = until_done(crew)
    assert of == job and isinstance(outcome, Failed) and reason in outcome.reason
    assert len(ray.jobs) == most
    assert shared.store.outcome(shared.key(job.run), job.run) == outcome, "as with --jobs, it is stored"


def test_a_new_checkpoint_begins_the_count_anew(shared):
    job = first_job(shared)
    outcome = trained([(1, 0.5)], job.run)
    ray = ToldRay([died(-9)] * (3 * MOST_DEATHS) + [done(outcome)])
    file = shared.store.training(shared.key(job.run)) / "last" / "state.safetensors"
    file.parent.mkdir(parents=True)
    crew = crew_of(ray, shared)
    crew.start(job)
    for number in range(3 * MOST_DEATHS):
        file.write_bytes(b"")
        os.utime(file, ns=(number, number))
        assert crew.wait() == []
    assert until_done(crew) == [(job, outcome)]


def test_what_was_stored_before_its_process_died_counts(shared):
    job = first_job(shared)
    outcome = trained([(1, 0.5)], job.run)
    shared.store.finish(shared.key(job.run), outcome)
    crew = crew_of(ToldRay([died(-9)] * MOST_DEATHS), shared)
    crew.start(job)
    assert until_done(crew) == [(job, outcome)]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([done(SweepFault("No space left on device"))], "No space left on device"),
        ([("fault", "node a has torch 1, the driver 2")], "node a has torch 1"),
        ([("unbegun", -9)] * 3, "3 processes one after the other ended before they began"),
        ([TaskFailed()], "no room"),
    ],
)
def test_faults_of_every_arm_end_the_sweep(shared, answers, said):
    crew = crew_of(ToldRay(answers), shared)
    crew.start(first_job(shared))
    with pytest.raises(GarnishError, match=said) as fault:
        until_done(crew)
    assert "\n" not in str(fault.value) and len(str(fault.value)) < 400
    assert not list(shared.store.folder.rglob("failed.json"))


def test_runs_at_once(shared, monkeypatch):
    job = first_job(shared)
    ray = ToldRay([died(-9)] * 20, nodes=[(2, 0), (1, 0), (0, 0)])
    crew = crew_of(ray, shared, jobs=None)
    for _ in range(3):
        assert crew.is_free()
        crew.start(job)
    assert not crew.is_free(), "two and one"
    ray.hosts = [(2, 0), (3, 0)]
    monkeypatch.setattr(ray_crew, "_COUNT", 0.0)
    assert crew.is_free(), "a node came"
    assert not crew_of(ToldRay(nodes=[]), shared, jobs=None)._busy()
    bounded = crew_of(ToldRay([died(-9)], nodes=[(9, 0)]), shared, jobs=1)
    bounded.start(job)
    assert not bounded.is_free()


def test_a_request_to_stop_reaches_runs_that_have_a_node(shared):
    ray = ToldRay([died(0)])
    crew = crew_of(ray, shared)
    crew.start(first_job(shared))
    crew._requests.number = 15
    assert not crew.is_free()
    with pytest.raises(SystemExit) as end:
        crew.wait()
    assert end.value.code == 143 and len(ray.killed) == 1


def test_nodes_of_several_kinds_are_told_once(shared):
    job, said = first_job(shared), []
    outcome = trained([(1, 0.5)], job.run)
    crew = crew_of(ToldRay([done(outcome, name) for name in ("AVX2", "AVX2", "AVX512", "AVX2")]), shared, said)
    for count in (0, 0, 1, 1):
        crew.start(job)
        until_done(crew)
        assert len(said) == count
    assert "AVX2 and AVX512" in said[0]


def test_runs_that_wait_are_told(shared, monkeypatch):
    said = []
    ray = ToldRay([died(0)], nodes=[(4, 0)])
    crew = crew_of(ray, shared, said)
    crew.each = PerRun(cpus=8, threads=8, gpus=1)
    crew.start(first_job(shared))
    monkeypatch.setattr(ray, "wait", lambda refs, **given: ([], list(refs)))
    crew.wait()
    assert said == []
    monkeypatch.setattr(ray_crew, "_REMIND", -1.0)
    crew.wait()
    assert said == [
        "1 run: waiting for a node with 8 CPUs, 8 threads, 1 GPU; those there have 4 CPUs and 0 GPUs at most"
    ]


# ---- what a run has ---------------------------------------------------------------------------------------------


def test_threads_are_those_of_jobs_unless_told(monkeypatch):
    nodes = ToldRay(nodes=[(16, 0)]).nodes()
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    given = {"cpus": None, "gpus": None, "accelerator": "auto"}
    assert per_run(nodes, jobs=4, **given) == PerRun(cpus=2, threads=2, gpus=0)
    assert per_run(nodes, jobs=1, **given) == PerRun(cpus=8, threads=4, gpus=0)
    assert per_run(nodes, jobs=None, **given) == PerRun(cpus=1, threads=1, gpus=0)
    assert per_run(nodes, jobs=4, **given | {"cpus": 3}) == PerRun(cpus=3, threads=3, gpus=0)


def test_gpus_where_there_are_any():
    some, none = (ToldRay(nodes=nodes).nodes() for nodes in ([(16, 2), (4, 0)], [(16, 0)]))
    given = {"jobs": None, "cpus": 4}
    assert per_run(some, **given, gpus=None, accelerator="auto").gpus == 1
    assert per_run(some, **given, gpus=None, accelerator="cpu").gpus == 0
    assert per_run(some, **given, gpus=0.0, accelerator="auto").gpus == 0
    half = per_run(some, **given, gpus=0.5, accelerator="cuda")
    assert [half.fit_on(node) for node in some] == [4, 0]
    for nodes, gpus, accelerator in ((none, None, "cuda"), (some, 0.0, "cuda"), (some, 1.0, "cpu")):
        with pytest.raises(OptionError, match=r"leave one|set --gpus 1"):
            per_run(nodes, **given, gpus=gpus, accelerator=accelerator)


class _Sleep:
    """Keeps a process busy when it is unpickled there."""

    def __reduce__(self):
        return time.sleep, (60,)


LONG = pickle.dumps(_Sleep())


# ---- what a node must have --------------------------------------------------------------------------------------


def test_a_node_that_sees_all(tmp_path):
    with shown_to_nodes(tmp_path / "store") as needs:
        assert lacks(needs) == ""
    assert not list(tmp_path.rglob("*.*")) and not (tmp_path / "store/probes").exists()


def test_what_a_killed_driver_left_is_removed(tmp_path):
    probes = tmp_path / "store/probes"
    probes.mkdir(parents=True)
    for name in ("left", "left.lock", "left.lock.by", "held", "held.lock"):
        (probes / name).touch()
    with FileLock(str(probes / "held.lock")), shown_to_nodes(tmp_path / "store"):
        names = {file.name for file in probes.iterdir()}
        assert {"held", "held.lock"} < names and not any(name.startswith("left") for name in names)


def test_a_node_that_lacks_something(tmp_path, monkeypatch):
    (tmp_path / "other/probes").mkdir(parents=True)
    with shown_to_nodes(tmp_path / "store") as needs:
        given = vars(needs)
        assert "does not see the folder of the runs" in lacks(Needs(**given | {"folder": str(tmp_path / "other")}))
        (tmp_path / "other/probes" / needs.probe).write_text("a stranger's")
        assert "does not see the folder" in lacks(Needs(**given | {"folder": str(tmp_path / "other")}))
        (tmp_path / "other/probes" / needs.probe).write_text(needs.probe)
        assert "does not see the locks" in lacks(Needs(**given | {"folder": str(tmp_path / "other")}))
        versions = needs.versions | {"torch": "1.0"}
        assert "the driver 1.0; install the same" in lacks(Needs(**given | {"versions": versions}))
        monkeypatch.setattr("garnish.cluster.shared_folder.write_file", read_only)
        assert "cannot write into" in lacks(needs)


def read_only(file, data):
    raise PermissionError(13, "Read-only file system", str(file))


def test_other_data_or_weights_on_a_node(shared, mit_weights, tmp_path):
    sent = Sent.of(shared)
    pickle.loads(pickle.dumps(sent)).check()
    digests = dict.fromkeys(sent.digests, "0")
    with pytest.raises(DataError, match="are not those of the driver"):
        Sent(shared, digests).check()
    other = conditions(tmp_path / "report", mit_weights, references=["frozen"], seeds=1)
    other._trunk = type(shared.trunk_facts)(**vars(shared.trunk_facts) | {"fingerprint": "0"})
    with pytest.raises(WeightsError, match="are not those of the driver"):
        Sent(other, sent.digests).check()


def test_a_slot_trains_and_tells_how_its_process_ended(shared, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # and the rest of what a slot sets for its process alone
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    job = first_job(shared)
    with shown_to_nodes(shared.store.folder) as needs:
        slot = RunSlot(pickle.dumps(Sent.of(shared)), needs, 1, 0)
        kind, data, processor = slot.do(pickle.dumps(job))
        assert kind == "done", data
        assert processor == torch.backends.cpu.get_cpu_capability()
        assert as_json(pickle.loads(data)) == as_json(shared.store.outcome(shared.key(job.run), job.run))
        threading.Timer(0.5, os.kill, (slot._process.pid, signal.SIGKILL)).start()
        assert slot.do(LONG) == ("ended", -9)
        slot.stop()
        assert not slot._process.is_alive()
        assert slot.do(pickle.dumps(job)) == ("unbegun", 0), "none is started after that"


# ---- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cpus", "2"], "give --on too"),
        (["--gpus", "0.5"], "give --on too"),
        (["--on", "slurm"], "'slurm' is unknown; write ray for one of this machine"),
        (["--on", "ray://"], "is unknown"),
        (["--on", "ray", "--gpus", "1.5"], "is no number of GPUs"),
        (["--on", "ray", "--gpus", "many"], "is no number of GPUs"),
        (["--on", "ray", "--store", "s3://bucket/runs"], "compare.store: 's3://bucket/runs' is an address"),
        (["--store", "s3://bucket/runs"], "compare.store: 's3://bucket/runs' is an address"),
    ],
)
def test_refused(words, said, tmp_path):
    given = ["--backbone", "mit_b0", "--data", "scenes", "--adapters", "LoRA", "--out", str(tmp_path / "report")]
    with pytest.raises(OptionError, match=said) as fault:
        command([*given, *words])
    assert "\n" not in str(fault.value) and len(str(fault.value)) < 400
    assert not list(tmp_path.iterdir())


def test_addresses():
    assert [ray_address(on) for on in ("ray", "ray:auto", "ray://a:10001")] == [None, "auto", "ray://a:10001"]


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'garnish\[ray\]'"), connected("ray"):
        pass


def test_a_ray_that_does_not_begin_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray", reason="pip install 'garnish[ray]'")

    def init(**given):
        assert given["address"] == "local", "never a stranger's that runs on this machine"
        raise Exception("The current node timed out during startup.\nSee the logs")

    monkeypatch.setattr(ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OptionError, match="--on ray: cannot be started") as fault, connected("ray"):
        pass
    assert "\n" not in str(fault.value) and signal.getsignal(signal.SIGTERM) is before
