"""A step that is only simulated makes the operations, and keeps the bytes, of a real one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

import garnish as gn
import tiny
from garnish import registry
from garnish.checking.recording import Recorder
from garnish.model.model import adapt
from garnish.planning import memory
from garnish.planning import stopwatch as stopwatches
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep
from garnish.planning.shaped_trunk import ShapedTrunk
from garnish.planning.step_cost_prediction import PredictedStep, predict_step, record_step
from garnish.planning.stopwatch import Stopwatch

METHODS = ("Frozen", "LoRA", "AdaptFormer", "VMTAdapter", "MTLoRA", "SideTuning")


def tasks(*, every: bool = False) -> dict[str, gn.Task]:
    found = {name: registry.build("tasks", *tiny.TASKS[name]) for name in tiny.TASKS}
    return found | {"edges": gn.Edges(), "saliency": gn.Saliency()} if every else found


class Operations(TorchDispatchMode):
    """Counts operations with the shapes that they are given.

    Left out are views and questions about a fake tensor, and what depends on strides over axes of length one, which may
    differ, and with them whether a reshape copies or views.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        no_work = func.namespace in ("prim", "profiler") or func.is_view
        if not no_work and str(func) not in ("aten.clone.default", "aten._unsafe_view.default"):
            shapes = tree_map(lambda v: tuple(v.shape) if isinstance(v, torch.Tensor) else v, args)
            self.found[str(func), str(shapes)] += 1
        return func(*args, **(kwargs or {}))


def record(model: gn.Model) -> tuple[Recorder, Counter, int]:
    with Operations() as operations, FlopCounterMode(display=False) as flops:
        recorder = record_step(model, 2, (64, 64))
    return recorder, operations.found, flops.get_total_flops()


def fake_record(short: str, method: gn.Method) -> tuple[Recorder, Counter, int]:
    _, name, options = tiny.BACKBONES[short]
    fake = FakeTensorMode()
    trunk = ShapedTrunk(name, options).to_run(fake)
    with fake:
        return record(adapt(trunk, method, tasks(every=True), None))


@pytest.mark.parametrize("short", ["vit", "swin", "mit"])
@pytest.mark.parametrize("name", METHODS)
def test_a_simulated_step_is_the_real_one(short, name):
    method = registry.build("adapters", name)
    fake, operations, flops = fake_record(short, method)
    real, real_operations, real_flops = record(adapt(tiny.backbone(short), method, tasks(every=True), None))
    assert operations == real_operations and operations
    assert fake.start_bytes == real.start_bytes
    assert fake.peak_bytes == real.peak_bytes
    assert flops == real_flops > 0


def test_bytes_alive_by_hand():
    x = torch.zeros(1000)  # 4,000 bytes
    with Recorder([x]) as recorder:
        a = x + 1  # 8,000
        b = a.view(10, 100) * 2  # 12,000; the view is no storage of its own
        del a  # 8,000
        c = torch.cat([b, b])  # 16,000: the most
        del b
        d = c[0].clone()  # 12,000 + 400
        assert recorder.alive_bytes == 12_400
    assert recorder.start_bytes == 4000
    assert recorder.peak_bytes == 16_000
    del c
    assert recorder.alive_bytes == 4400  # what is freed after the block counts as freed, too
    del d


def test_what_is_written_in_place_is_counted_once():
    x = torch.zeros(1000)
    with Recorder([x]) as recorder:
        x.add_(1).mul_(2)
    assert recorder.peak_bytes == 4000


def test_the_optimizer_s_state_is_there_before_the_step():
    model = adapt(tiny.backbone("vit"), gn.LoRA(rank=2), tasks(), None)
    step = ExampleStep(model, 2, (64, 64))
    trained = sum(p.numel() for p in model.trained_parameters().values())
    own = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers())
    }
    held = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in step.tensors()}.values())
    batch = step.batch.images.nbytes + sum(t.nbytes for t in step.batch.targets.values())
    scalars = 4 * len(model.trained_parameters())  # AdamW's counts of steps
    assert held == sum(own.values()) + 2 * 4 * trained + scalars + batch


def test_preparing_a_step_changes_nothing_and_the_step_trains():
    model = adapt(tiny.backbone("vit"), gn.LoRA(rank=2), tasks(), None)
    former = {n: p.detach().clone() for n, p in model.trained_parameters().items()}
    step = ExampleStep(model, 2, (64, 64))
    assert all(torch.equal(former[n], p) for n, p in model.trained_parameters().items())
    for group in step.training_step.optimizer.param_groups:
        group["lr"] = 1e-2
    step()
    changed = [n for n, p in model.trained_parameters().items() if not torch.equal(former[n], p)]
    assert {n.split(".")[0] for n in changed} == {"adapters", "heads"}


# ---- time ---------------------------------------------------------------------------------------------------------


def setting(short: str = "vit") -> Setting:
    _, name, options = tiny.BACKBONES[short]
    return Setting(ShapedTrunk(name, options), tasks(), None, 2, (64, 64))


def timed(stopwatch: Stopwatch, method: gn.Method) -> PredictedStep | str:
    return stopwatch.timed(PredictedStep(1, 1), method)


@pytest.mark.parametrize(
    ("heads", "own", "pairs", "seconds", "ratio"),
    [
        ([0.5], [1.6, 1.2], 2, 1.2, 2.4),  # a long step: its first counts only where it is the fastest
        ([0.6, 0.5], [1.0, 1.1], 2, 1.0, 2.0),
        ([0.1, 0.09], [0.2, 0.15, 0.16], 2, 0.15, 0.15 / 0.09),  # two are a third of a second
        ([0.1], [0.12, 0.11, 0.13], 3, 0.11, 1.1),
        ([0.01], [0.02], 15, 0.02, 2.0),
    ],
)
def test_a_step_is_timed_in_pairs_with_one_of_heads_only(monkeypatch, heads, own, pairs, seconds, ratio):
    asked: list[bool] = []

    def scripted(step):
        is_heads_only = not any(name.startswith("adapters") for name in step.training_step.trained)
        asked.append(is_heads_only)
        script = heads if is_heads_only else own
        return script[min(asked.count(is_heads_only), len(script)) - 1]

    monkeypatch.setattr(stopwatches, "_seconds", scripted)
    found = timed(Stopwatch(setting()), gn.LoRA(rank=2))
    assert asked == [True, False] * pairs
    assert found == PredictedStep(1, 1, step_seconds=pytest.approx(seconds), step_ratio=pytest.approx(ratio))


def test_heads_only_take_as_long_as_themselves():
    found = timed(Stopwatch(setting()), gn.Frozen())
    assert found.step_ratio == 1.0 and 0 < found.step_seconds < 10


@pytest.mark.parametrize("short", ["vit", "swin", "mit", "cnn"])
def test_all_steps_are_made_on_one_trunk_which_stays_as_it_was(short, monkeypatch):
    trunks = []
    build = ShapedTrunk.with_values
    monkeypatch.setattr(ShapedTrunk, "with_values", lambda self: trunks.append(build(self)) or trunks[-1])
    monkeypatch.setattr(stopwatches, "_MOST", 2)
    stopwatch = Stopwatch(setting(short))
    known = timed(stopwatch, gn.Frozen())
    assert isinstance(known, PredictedStep)
    (trunk,) = trunks
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    bytes_of_it = {tensor.data_ptr() for tensor in trunk.parameters()}
    seen = []
    monkeypatch.setattr(stopwatches, "_seconds", lambda step: seen.append(step) or 1.0)
    for method in (gn.LoRA(rank=2), gn.FullFineTuning(), gn.BitFit(), gn.SideTuning()):
        assert isinstance(timed(stopwatch, method), PredictedStep), method
    for step in seen:
        assert {p.data_ptr() for p in step.training_step.model.backbone.frozen_tensors().values()} & bytes_of_it
        assert not bytes_of_it & {p.data_ptr() for p in step.training_step.trained.values()}
    assert len(trunks) == 1 and not trunk.is_adapted
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())


def test_a_step_that_does_not_fit_is_not_made_and_nothing_is_built_for_it(monkeypatch):
    monkeypatch.setattr(ShapedTrunk, "with_values", None)
    monkeypatch.setattr(stopwatches, "free_bytes", lambda: 1.1e9)
    found = Stopwatch(setting()).timed(PredictedStep(10**9, 1), gn.Frozen())  # a fifth more than its tensors
    assert found == "its step is not timed, as it needs 1.2 GB and 1.1 GB are free"


def test_a_step_that_fails_is_told(monkeypatch):
    stopwatch = Stopwatch(setting())
    step = ExampleStep.__call__

    def fails(self):
        if self.training_step.model.owners[0].methods[0] != gn.Frozen():
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        step(self)

    monkeypatch.setattr(ExampleStep, "__call__", fails)
    assert timed(stopwatch, gn.LoRA(rank=2)) == "its step cannot be timed (DefaultCPUAllocator: not enough memory)"
    assert isinstance(timed(stopwatch, gn.Frozen()), PredictedStep)


def test_a_step_in_the_trunk_takes_longer_than_heads_only():
    found = timed(Stopwatch(setting()), gn.FullFineTuning())
    assert found.step_ratio > 1.2  # a backward pass through four blocks, and an optimizer over them


def test_free_memory_is_what_the_machine_and_the_container_have(monkeypatch):
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert memory.free_bytes() == pytest.approx(int(told["MemAvailable"].split()[0]) * 1024, rel=0.2)
    monkeypatch.setattr(memory, "machine_bytes", lambda: memory.resident_bytes() + 5_000_000)
    assert memory.free_bytes() == pytest.approx(5_000_000, abs=1_000_000)
    monkeypatch.setattr(memory, "Path", lambda name: Path("/nowhere"))
    assert memory.free_bytes() == math.inf and memory.resident_bytes() == 0


ONE = """
import json, sys
sys.path.insert(0, {folder!r})
import measure
print(json.dumps(measure.measured({trunk!r}, {method!r}, 2, 1)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["ViT-S/16", "Swin-T", "MiT-B0"])
@pytest.mark.parametrize("method", ["LoRA", "MTLoRA", "SideTuning"])
def test_memory_is_predicted_within_a_fifth(trunk, method):
    folder = Path(__file__).parents[1] / "benchmarks" / "plan"
    sys.path.insert(0, str(folder))
    try:
        import measure
    finally:
        sys.path.remove(str(folder))
    found = predict_step(
        Setting(ShapedTrunk(measure.TRUNKS[trunk]), measure.tasks(), None, 2, (224, 224)),
        registry.build("adapters", method),
    )
    code = ONE.format(folder=str(folder), trunk=trunk, method=method)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout
    real = json.loads(out.splitlines()[-1])["memory_bytes"]
    assert found.memory_bytes == pytest.approx(real, rel=0.2)
