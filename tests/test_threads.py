"""One model used from several threads: each pass equals the one that runs alone bit for bit, and waits for no other."""

from __future__ import annotations

import asyncio
import copy
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import tiny
from compiling import Counting
from conformance.cases import every_costly, made
from garnish.model.evaluation_mode import evaluating
from garnish.model.model import Model

pytestmark = pytest.mark.usefixtures("one_thread", "eager_switching")

THREADS = 4
#: what passes ask for, other things in each thread
MIXES: tuple[Sequence[Sequence[str]] | Sequence[str] | None, ...] = (tiny.MIX, ["depth"], None, ["seg"])
#: passes of one case, so that the cases of the fast suite make more than a thousand
PASSES = 20

Pass = Callable[[], list[Tensor]]


@pytest.fixture(scope="module")
def eager_switching():
    """The interpreter changes threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def outputs(model: Model, mix) -> Pass:
    def run() -> list[Tensor]:
        with torch.no_grad():
            return list(model(tiny.pictures(), mix).values())

    return run


def gradients(model: Model, mix) -> Pass:
    def run() -> list[Tensor]:
        loss = tiny.one_loss(model(tiny.pictures(), mix))
        found = torch.autograd.grad(loss, list(model.trained_parameters().values()), allow_unused=True)
        return [torch.zeros(()) if g is None else g for g in found]

    return run


def differing(passes: Sequence[Pass], count: int) -> list[int]:
    """Run ``count`` passes, in turn those given, from four threads that start together; those unlike the serial."""
    expected = [one() for one in passes]
    start = threading.Barrier(THREADS)

    def work(first: int) -> list[int]:
        start.wait(timeout=60)
        wrong = []
        for number in range(first, count, THREADS):
            which = (number + number // THREADS) % len(passes)  # each thread comes by all of them
            got = passes[which]()
            if not all(torch.equal(a, b) for a, b in zip(got, expected[which], strict=True)):
                wrong.append(number)
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        return [number for found in pool.map(work, range(THREADS)) for number in found]


def every_pass(model: Model) -> list[Pass]:
    return [make(model, mix) for mix in MIXES for make in (outputs, gradients)]


@every_costly
def test_passes_of_four_threads_equal_serial_ones(case, short, per_task):
    model = made(case, short, per_task)
    assert differing(every_pass(model), PASSES) == []
    assert model.backbone.binding.context is None


@every_costly
def test_checkpointed_passes_of_four_threads_equal_serial_ones(case, short, per_task):
    model = made(case, short, per_task)
    model.backbone.checkpointing = True
    assert differing([gradients(model, mix) for mix in MIXES], 8) == []


COMPILED = [("LoRA", True), ("BitFit", True), ("MTLoRA", False), ("VPT", True), ("LoRA+AdaptFormer", True)]


@pytest.mark.compile
@pytest.mark.parametrize(
    ("case", "per_task"),
    [pytest.param(c, p, id=c, marks=pytest.mark.slow) for c, p in COMPILED],
)
def test_compiled_passes_of_four_threads_equal_serial_ones(case, per_task):
    torch._dynamo.reset()
    model = made(case, "dinov2", per_task)
    counting = Counting()
    model.compile(backend=counting)
    passes = [outputs(model, mix) for mix in ([["seg"], ["depth"], ["depth"]], ["depth"], None)]
    for one in passes:
        one()
    before = counting.graphs
    with ThreadPoolExecutor(1) as pool:
        for one in passes:
            pool.submit(one).result(timeout=300)
    assert counting.graphs == before  # a graph serves all threads
    assert differing(passes, 16) == []
    torch._dynamo.reset()


def test_joined_owners_of_many_kinds_from_four_threads():
    model = tiny.model("dinov2", tiny.methods("LoRA", per_task=True), tasks=("seg",))
    for name, method in (("depth", "BitFit"), ("normals", "FullFineTuning")):
        task = tiny.registry.build("tasks", *tiny.TASKS[name])
        model.add([*tiny.methods("LoRA", per_task=False), *tiny.methods(method, per_task=False)], {name: task})
    tiny.randomise_own(model, seed=5)
    model.eval()
    assert differing(every_pass(model), 40) == []


def test_to_thread_equals_the_serial_pass():
    model = made("BitFit", "swin", True)
    jobs = [outputs(model, [task]) for task in model.tasks] * 4
    expected = [job() for job in jobs]

    async def all_at_once() -> list[list[Tensor]]:
        return await asyncio.gather(*(asyncio.to_thread(job) for job in jobs))

    for got, want in zip(asyncio.run(all_at_once()), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("case", ["LoRA", "BitFit", "FullFineTuning", "VPT", "SideTuning", "MTLoRA"])
def test_no_pass_waits_for_another(case):
    """A pass is held in the trunk's first block; others, of its task and of another, run to their end meanwhile."""
    model = made(case, "dinov2", case != "MTLoRA")
    jobs = [outputs(model, [task]) for task in ("seg", "depth")]
    expected = [job() for job in jobs]
    arrived, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        if threading.current_thread() is held:
            arrived.set()
            assert go_on.wait(timeout=60)

    kept: list[list[Tensor]] = []
    held = threading.Thread(target=lambda: kept.append(jobs[0]()))
    block = model.backbone.stages[0].blocks[0]["attn"]
    handle = block.register_forward_hook(hold)
    held.start()
    try:
        assert arrived.wait(timeout=60)
        with ThreadPoolExecutor(1) as pool:
            others = [pool.submit(job) for job in jobs]
            for other, want in zip(others, expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(other.result(timeout=60), want, strict=True))
    finally:
        go_on.set()
        held.join(timeout=60)
        handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(kept[0], expected[0], strict=True))


def test_predictions_from_threads_on_a_model_in_training_mode_run_in_evaluation_mode():
    model = tiny.model("vit", tiny.registry.build("adapters", "AdaptFormer", {"dropout": 0.5, "bottleneck": 16}))
    picture = (tiny.pictures()[0] * 255).to(torch.uint8)
    want = model.predict(picture)["depth"]
    model.train()
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda _: model.predict(picture)["depth"], range(12)))
    assert all(torch.equal(got, want) for got in found)
    assert model.training and any(m.training for m in model.backbone.modules())


def test_evaluation_mode_ends_with_the_last_block_also_after_an_error():
    model = tiny.model("vit", tiny.registry.build("adapters", "LoRA")).train()
    with evaluating(model):
        with pytest.raises(KeyError), evaluating(model):
            raise KeyError
        assert not model.training
    assert model.training


# ---- modules of owners that tune the trunk --------------------------------------------------------------------------


def test_tuned_owners_share_every_tensor_but_their_own_with_the_trunk():
    model = made("BitFit", "swin", True)
    trunk = model.backbone
    own = dict(model.owners[0].tuned.items())
    names = {id(t): name for name, t in trunk.frozen_tensors().items()}
    tensors = list(model.owners[0].body(trunk.body).parameters())
    strange = [t for t in tensors if id(t) not in names]
    assert {id(t) for t in strange} == {id(t) for t in own.values()}
    assert {names[id(t)] for t in tensors if id(t) in names} == set(trunk.frozen_tensors()) - set(own) - {
        n for n, t in trunk.frozen_tensors().items() if not isinstance(t, torch.nn.Parameter)
    }


def test_modules_of_a_tuned_owner_follow_conversion_and_copies():
    model = made("BitFit", "cnn", False)
    x = tiny.pictures()
    with torch.no_grad():
        want = copy.deepcopy(model).double()(x)
        for name, got in model.double()(x).items():
            assert got.dtype == torch.float64 and torch.equal(got, want[name])
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.trained_parameters().values():
            parameter.mul_(2.0)
        again = model(x)
    for name, got in again.items():
        assert torch.equal(got, want[name])
        assert tiny.far(twin(x)[name], got) > 1e-3


def test_only_the_owner_that_tunes_the_trunk_lets_it_drop():
    """Drop-path of a tuned trunk acts in that owner's passes alone, also where another owner trains beside it."""
    trunk = tiny.garnish.backbone("vit_tiny_patch16_224", options={**tiny.BACKBONES["vit"][2], "drop_path_rate": 0.9})
    tasks = {name: tiny.registry.build("tasks", *spec) for name, spec in tiny.TASKS.items() if name != "normals"}
    model = tiny.garnish.adapt(trunk, tiny.registry.build("adapters", "FullFineTuning"), {"seg": tasks["seg"]})
    model.add(tiny.registry.build("adapters", "LoRA"), {"depth": tasks["depth"]})
    x = tiny.pictures()
    model.train()
    assert not torch.equal(model(x, ["seg"])["seg"], model(x, ["seg"])["seg"])
    assert torch.equal(model(x, ["depth"])["depth"], model(x, ["depth"])["depth"])
    model.eval()
    assert torch.equal(model(x, ["seg"])["seg"], model(x, ["seg"])["seg"])
    model.freeze(["seg"])
    model.train()
    assert torch.equal(model(x, ["seg"])["seg"], model(x, ["seg"])["seg"])


# ---- what is changed from outside -----------------------------------------------------------------------------------

TUNED = ("BitFit", "FullFineTuning")


@pytest.mark.parametrize("case", TUNED)
def test_tensors_that_are_put_in_place_from_outside_act_in_tuned_passes(case):
    """With ``assign=True`` and ``functional_call``: as in a model that was made with these values."""
    model, other = made(case, "swin", False), made(case, "swin", False)
    tiny.randomise_trunk(other.backbone, seed=9)
    tiny.randomise_own(other, seed=10)
    x = tiny.pictures()
    with torch.no_grad():
        want, before = other(x), model(x)
        called = torch.func.functional_call(model, other.state_dict(), (x,))
        after = model(x)
        model.load_state_dict(other.state_dict(), assign=True)
        assigned = model(x)
    for task in want:
        assert tiny.far(before[task], want[task]) > 1e-2
        assert torch.equal(called[task], want[task])
        assert torch.equal(after[task], before[task])
        assert torch.equal(assigned[task], want[task])
    model.requires_grad_(True)
    tiny.one_loss(model(x)).backward()
    assert all(p.grad is not None for _, p in model.owners[0].tuned.items())


@pytest.mark.parametrize("case", TUNED)
def test_modules_that_are_put_in_place_from_outside_act_in_tuned_passes(case):
    model = made(case, "vit", False)
    block = model.backbone.stages[1].blocks[0]
    x = tiny.pictures()
    with torch.no_grad():
        before = model(x)
        block["mlp"].branch.drop_path = torch.nn.Hardtanh(-0.01, 0.01)
        after = model(x)
    assert all(tiny.far(after[task], before[task]) > 1e-4 for task in before)


@pytest.mark.parametrize("case", ["LoRA", *TUNED])
def test_hooks_fire_whatever_is_adapted(case):
    model = made(case, "vit", False)
    fired: list[str] = []
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.Linear) and any(p.requires_grad is False for p in module.parameters()):
            module.register_full_backward_hook(lambda *_: fired.append("backward"))
            module.register_forward_hook(lambda *_: fired.append("forward"))
            break
    tiny.one_loss(model(tiny.pictures().clone().requires_grad_())).backward()
    assert sorted(fired) == ["backward", "forward"]
