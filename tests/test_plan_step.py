"""A step that is only simulated makes the operations, and keeps the bytes, of a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import garnish as gn
import tiny
from garnish import registry
from garnish.model.model import adapt
from garnish.model.report import flop_counter
from garnish.planning.arguments import Far, real_arguments
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep
from garnish.planning.op_times import OpTimes
from garnish.planning.recording import Call, Listed, Record, Recorder, Shaped, frozen
from garnish.planning.shaped_trunk import ShapedTrunk
from garnish.planning.step_cost_prediction import calibrated, predict, record_step

METHODS = ("Frozen", "LoRA", "AdaptFormer", "VMTAdapter", "MTLoRA", "SideTuning")


def tasks(*, every: bool = False) -> dict[str, gn.Task]:
    found = {name: registry.build("tasks", *tiny.TASKS[name]) for name in tiny.TASKS}
    return found | {"edges": gn.Edges(), "saliency": gn.Saliency()} if every else found


def fake_record(short: str, method: gn.Method, batch: int = 2, size: tuple[int, int] = (64, 64)) -> Record:
    _, name, options = tiny.BACKBONES[short]
    fake = FakeTensorMode()
    trunk = ShapedTrunk(name, options).to_run(fake, "cpu")
    with fake:
        return record_step(adapt(trunk, method, tasks(every=True), None), batch, size)


def real_record(short: str, method: gn.Method, batch: int = 2, size: tuple[int, int] = (64, 64)) -> Record:
    step = ExampleStep(adapt(tiny.backbone(short), method, tasks(every=True), None), batch, size)
    with Recorder(step.tensors()) as recorder:
        step()
    return recorder.record


def operations(record: Record) -> Counter:
    """How often each operation is called with which shapes.

    Strides over axes of length one may differ, and with them whether a reshape copies or views.
    """

    def shape(value):
        if isinstance(value, Listed):
            return tuple(map(shape, value.entries))
        return value.shape if isinstance(value, Shaped) else value

    found: Counter = Counter()
    for call, number in record.calls.items():
        if str(call.op) in ("aten.clone.default", "aten._unsafe_view.default"):
            continue
        found[call.op, tuple(map(shape, call.args))] += number
    return found


@pytest.mark.parametrize("short", ["vit", "swin", "mit"])
@pytest.mark.parametrize("name", METHODS)
def test_a_simulated_step_is_the_real_one(short, name):
    method = registry.build("adapters", name)
    fake, real = fake_record(short, method), real_record(short, method)
    assert operations(fake) == operations(real)
    assert fake.start_bytes == real.start_bytes
    assert fake.peak_bytes == real.peak_bytes
    assert fake.flops == real.flops > 0


def test_bytes_alive_by_hand():
    x = torch.zeros(1000)  # 4,000 bytes
    with Recorder([x]) as recorder:
        a = x + 1  # 8,000
        b = a.view(10, 100) * 2  # 12,000; the view is no storage of its own
        del a  # 8,000
        c = torch.cat([b, b])  # 16,000: the most
        del b
        d = c[0].clone()  # 12,000 + 400
    assert recorder.record.start_bytes == 4000
    assert recorder.record.peak_bytes == 16_000
    assert recorder.record.views == 2
    del c, d


def test_what_is_written_in_place_is_counted_once():
    x = torch.zeros(1000)
    with Recorder([x]) as recorder:
        x.add_(1).mul_(2)
    assert recorder.record.peak_bytes == 4000
    assert recorder.record.calls.total() == 2


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


def test_flops_are_those_of_torch_s_counter():
    model = adapt(tiny.backbone("mit"), gn.LoRA(rank=2), tasks(), None)  # attention without a mask, convolutions
    x = torch.rand(2, 3, 64, 64)
    with FlopCounterMode(display=False) as theirs:
        sum(o.square().mean() for o in model(x).values()).backward()
    with Recorder() as recorder:
        sum(o.square().mean() for o in model(x).values()).backward()
    assert recorder.record.flops == theirs.get_total_flops() > 0
    with torch.no_grad(), Recorder() as recorder, flop_counter() as ours:
        model(x)
    assert recorder.record.flops <= ours.get_total_flops()


ADD = torch.ops.aten.add.Tensor


def test_what_was_touched_long_ago_is_far():
    small, large = torch.zeros(2**16), torch.zeros(2**19)  # 256 KiB and 2 MiB
    with Recorder([small, large]) as recorder:
        a = small + small  # touched before the start: far
        b = a + a  # just made: near
        c = large + large  # far
        d = a + b  # two large ones later: far again
        e = d + d  # near
    found = Counter({(call.args[0].shape[0], call.far): n for call, n in recorder.record.calls.items()})
    assert found == {(2**16, True): 2, (2**16, False): 2, (2**19, True): 1}
    del c, e


@pytest.mark.parametrize("far", [True, False])
def test_each_kind_of_call_is_measured_once(far):
    call = Call(ADD, (Shaped((64, 64), (64, 1), torch.float32),) * 2, (), far)
    times = OpTimes()
    first = times.one(call)
    assert 0 < first < 0.1
    times._measure = None  # it must not be asked again
    assert times.one(call) == first


def test_far_memory_is_handed_out_round_and_round():
    far = Far(4 * 100, torch.device("cpu"))
    one, two, again = far.take(40), far.take(40), far.take(60)
    assert one.data_ptr() + 4 * 48 == two.data_ptr()  # parts begin at multiples of 64 bytes
    assert again.data_ptr() == one.data_ptr()
    assert far.take(200).shape == (200,)


def test_more_work_takes_more_time():
    def product(n: int) -> float:
        call = Call(torch.ops.aten.mm.default, (Shaped((n, n), (n, 1), torch.float32),) * 2, (), False)
        return OpTimes().one(call)

    assert product(512) > 8 * product(128)  # 64 times the work


def test_arguments_are_of_the_shapes_strides_and_types_that_were_seen():
    x, index = torch.rand(4, 6).t(), torch.tensor([0, 3])
    call = Call(torch.ops.aten.index_select.default, tuple(map(frozen, (x, 1, index))), (), False)
    args, _ = real_arguments(call, torch.device("cpu"))
    assert args[0].stride() == x.stride() and args[0].shape == x.shape and args[0].dtype == x.dtype
    assert args[2].dtype == torch.int64 and int(args[2].max()) < 4
    torch.ops.aten.index_select.default(*args)
    table = Call(
        torch.ops.aten.index.Tensor, tuple(map(frozen, (torch.rand(5, 9), [None, torch.arange(7)]))), (), False
    )
    args, _ = real_arguments(table, torch.device("cpu"))
    assert args[1][0] is None and args[1][1].tolist() == list(range(7))
    assert torch.ops.aten.index.Tensor(*args).shape == (5, 7)


def test_what_passes_between_operations_is_learnt(monkeypatch):
    record = Record(views=3)
    record.calls[Call(ADD, (Shaped((2,), (1,), torch.float32),) * 2, (), False)] = 2
    times = OpTimes()
    monkeypatch.setattr(times, "_measure", lambda call, warm=False: 1e-3 if warm else 2e-3)
    times.learn(record, 7e-3)  # two calls of one millisecond, and five things around which pass the other five
    assert times.around == pytest.approx(1e-3)
    assert times.of(record) == pytest.approx(4e-3 + 5e-3)
    times.learn(record, 0.0)
    assert times.around == 0.0


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
    found = predict(
        Setting(ShapedTrunk(measure.TRUNKS[trunk]), measure.tasks(), None, 2, (224, 224)),
        registry.build("adapters", method),
        calibrated_without_measuring(),
    )
    code = ONE.format(folder=str(folder), trunk=trunk, method=method)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout
    real = json.loads(out.splitlines()[-1])["memory_bytes"]
    assert found.memory_bytes == pytest.approx(real, rel=0.2)


def calibrated_without_measuring() -> OpTimes:
    times = OpTimes()
    times.of = lambda record: 1.0
    return times


@pytest.mark.slow
def test_what_passes_between_operations_is_microseconds():
    times = calibrated()
    assert 0 < times.around < 1e-3
