"""A bound on a step's memory: planned, kept by a count of its own, said, and the same when a run is resumed."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import garnish as gn
import tiny as tiny_models
from garnish.balancing.balancing import balancing_of
from garnish.data.dataset import Batch, collate
from garnish.errors import OptionError
from garnish.planning import survey as surveys
from garnish.planning.budget import Budget
from garnish.planning.counting import Setting
from garnish.planning.shaped_trunk import ShapedTrunk
from garnish.training import run_memory
from garnish.training.batch_size import largest_batch
from garnish.training.example_batch import copies, example_picture, with_gaps
from garnish.training.fit import fit
from garnish.training.memory_plan import in_words, plan_levels
from garnish.training.run_state import load_run
from garnish.training.simulated_step import SimulatedStep, moments
from garnish.training.step import TrainingStep
from garnish.training.train_options import TrainOptions
from training_cases import PARTIAL, QUIET, TASKS, Blobs, every, tensors_of, tiny

SHORT = {"check_pictures": 0, **QUIET}
SIZE, N = (32, 32), 4  #: the same in most tests, as torch remembers what it simulated of each size


class Counter(TorchDispatchMode):
    """Bytes of all memory that operations hand out and that is not freed, by address; independent of the package's."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.outside: set[int] = set()
        self.most = 0

    def leave_out(self, module: nn.Module) -> None:
        self.outside |= {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}

    def watch(self, tensor: Tensor) -> None:
        memory = tensor.untyped_storage()
        address = memory.data_ptr()
        if address and address not in self.outside and address not in self.sizes:
            self.sizes[address] = memory.nbytes()
            weakref.finalize(memory, self.sizes.pop, address).atexit = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in tree_flatten(out)[0]:
            if isinstance(one, Tensor):
                self.watch(one)
        self.most = max(self.most, sum(self.sizes.values()))
        return out


def step_of(short: str, method: gn.Method, **options) -> TrainingStep:
    torch.manual_seed(0)
    if short == "plain":
        model = tiny(method).train()
    else:
        model = gn.adapt(tiny_models.backbone(short), method, TASKS, gn.SegFormerHead(channels=8)).train()
    return TrainingStep(model, TASKS, balancing_of(None).build(TASKS), TrainOptions(steps=1, augment=None, **options))


def simulated(step: TrainingStep, *, is_real: bool = False, labels=None, gaps: bool = False) -> SimulatedStep:
    sample, _ = example_picture(Blobs(labels or every(2), sizes=[SIZE]), TASKS, step.options)
    return SimulatedStep(step, sample, gaps=gaps, processes=1, is_real=is_real)


def counted(step: TrainingStep, levels, batch: Batch) -> int:
    """Most bytes above the model in two real steps: the second has the optimizer's moments."""
    step.model.backbone.memory = levels
    counter = Counter()
    counter.leave_out(step.model)
    for tensor in (*batch.tensors(), *moments(step)):
        counter.watch(tensor)
    with counter:
        step(batch)
        step(batch)
    return counter.most


# ---- the bound --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short", ["plain", "convnext"])
@pytest.mark.parametrize(
    "method",
    [gn.LoRA(rank=2), pytest.param(gn.SSF(), marks=pytest.mark.slow), gn.FullFineTuning()],
    ids=lambda method: type(method).__name__,
)
def test_the_bound_holds_by_another_count_and_the_prediction_is_exact(short, method):
    step, count = step_of(short, method), 24 if method == gn.FullFineTuning() else N
    batch = collate([Blobs(every(count), sizes=[SIZE])[i] for i in range(count)])
    sim = simulated(step)
    fast, lean, least = (sim.peak((level,) * sim.num_blocks, count) for level in ("fast", "lean", "least"))
    assert lean < fast
    bound = (lean + least) // 2 if least < lean else (fast + lean) // 2
    plan = plan_levels(sim, count, bound)
    assert plan.fits and counted(step, plan.levels, batch) == plan.peak_bytes <= bound
    assert ("least" in plan.levels) == (bound < lean)
    assert plan.levels != ("least",) * sim.num_blocks  # not more than is needed
    assert sim.kept_bytes == sum(12 * p.numel() + 4 for p in step.model.trained_parameters().values())


def test_torchs_own_allocator_hands_out_little_more():
    """What kernels take inside of an operation: about 65 kB at most here, whatever else is kept."""
    step = step_of("plain", gn.LoRA(rank=2))
    batch = collate([Blobs(every(N), sizes=[SIZE])[i] for i in range(N)])
    predicted = simulated(step).peak(("least",) * 4, N)
    step.model.backbone.memory = "least"
    step(batch)  # makes the moments
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step(batch)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = sum(tensor.nbytes for tensor in (*batch.tensors(), *moments(step)))
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert predicted <= most <= predicted + 100_000


def test_a_larger_bound_never_makes_more_blocks_run_again():
    sim = simulated(step_of("plain", gn.LoRA(rank=2)))
    ends = [sim.peak((level,) * sim.num_blocks, N) for level in ("least", "fast")]
    plans = [plan_levels(sim, N, ends[0] + (ends[1] - ends[0]) * part // 6) for part in range(-1, 7)]
    cost = [(plan.levels.count("least"), plan.levels.count("lean")) for plan in plans]
    assert [plan.fits for plan in plans] == [False] + [True] * 7
    assert cost[1:] == sorted(cost[1:], reverse=True) and len(set(cost)) > 3
    assert cost[-1] == (0, 0) and plans[-1].peak_bytes == ends[1]
    assert all(plan.peak_bytes <= ends[0] + (ends[1] - ends[0]) * part // 6 for part, plan in enumerate(plans[1:]))


def test_equal_blocks_run_again_from_the_first_on():
    """A block at the end runs again while what all others keep is still there."""
    sim = simulated(step_of("plain", gn.LoRA(rank=2)))
    kept, macs = sim.counts("lean", N)
    least, _ = sim.counts("least", N)
    assert len(set(macs)) == 1 and all(a > b for a, b in zip(kept, least, strict=True))
    lean = sim.peak(("lean",) * 4, N)
    assert sim.peak(("least", *["lean"] * 3), N) < lean
    plan = plan_levels(sim, N, sim.peak(("least", *["lean"] * 3), N))
    assert plan.levels == ("least", "lean", "lean", "lean")
    assert in_words(plan.levels) == "3 blocks lean, 1 least" and in_words(("fast",)) == "1 block fast"


def test_labels_of_some_pictures_only_are_planned_for():
    step = step_of("plain", gn.LoRA(rank=2))
    sim, levels = simulated(step, gaps=True), ("lean",) * 4
    full = copies(example_picture(Blobs(every(2), sizes=[SIZE]), TASKS, step.options)[0], N, torch.device("cpu"))
    found = with_gaps(full)
    assert found.where == {"seg": [1, 2, 3], "depth": [0, 2, 3]} and found.targets["depth"].shape[0] == 3
    assert sim.peak(levels, N) == max(counted(step, levels, batch) for batch in (full, found))


def test_accumulated_gradients_count():
    one, two = (simulated(step_of("plain", gn.FullFineTuning(), accumulate=n)) for n in (1, 2))
    levels = ("lean",) * 4
    trained = sum(p.nbytes for p in step_of("plain", gn.FullFineTuning()).trained.values())
    assert two.peak(levels, 24) - one.peak(levels, 24) == trained


def test_a_bf16_step_is_predicted_as_it_is():
    from garnish.training.processes import make_fabric

    options = TrainOptions(steps=1, augment=None, accelerator="cpu", precision="bf16-mixed")
    torch.manual_seed(0)
    model = tiny(gn.LoRA(rank=2)).train()
    step = TrainingStep(model, TASKS, balancing_of(None).build(TASKS), options, make_fabric(options))
    batch = collate([Blobs(every(N), sizes=[SIZE])[i] for i in range(N)])
    for level in ("fast", "lean", "least"):
        assert simulated(step).peak((level,) * 4, N) == counted(step, (level,) * 4, batch)


# ---- runs -------------------------------------------------------------------------------------------------------


def lines(capsys, **options) -> list[str]:
    fit(tiny(gn.LoRA(rank=2)), Blobs(every(4), sizes=[SIZE]), steps=1, **SHORT | {"progress": True} | options)
    return [line for line in capsys.readouterr().err.splitlines() if "memory:" in line]


def test_the_first_step_is_said(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (line,) = lines(capsys, batch_size=4, memory_gb=1)
    assert line.startswith("memory: 4 blocks fast; ") and line.endswith(", bound 1.00 GB")
    predicted, measured = line.split("; ")[1].split(", ")[:2]
    assert predicted.removesuffix(" predicted") == measured.removesuffix(" in the first step")
    assert lines(capsys, batch_size=4) == [] == lines(capsys, batch_size=4, memory="least")


def test_what_exceeds_the_bound_after_all_is_a_warning(monkeypatch):
    class Larger(Blobs):
        """Its seventeenth picture, beyond those that are looked at, is larger."""

        def __getitem__(self, index):
            self.sizes = [(96, 96) if index == 16 else SIZE]
            return super().__getitem__(index)

    options = SHORT | {"batch_size": 1, "seed": 0}
    result = fit(tiny(gn.LoRA(rank=2)), Larger(every(17)), steps=17, memory_gb=1, **options)
    assert [w for w in result.warnings if w.startswith("memory: a picture of 96 × 96 is larger than those")]
    monkeypatch.setattr(
        run_memory, "plan_levels", lambda s, n, bound: run_memory.MemoryPlan(("fast",) * 4, bound, True)
    )
    result = fit(tiny(gn.LoRA(rank=2)), Blobs(every(4)), steps=1, memory_gb=0.0001, **options)
    assert [w for w in result.warnings if w.startswith("memory: 4 blocks fast; 0.10 MB predicted, ") and "exceeds" in w]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": "lean", "memory_gb": 1.0}, "^train.memory: memory_gb chooses"),
        ({"checkpointing": True, "memory_gb": 1.0}, "^train.checkpointing: memory_gb chooses"),
        ({"memory": "least", "checkpointing": True}, "^train.checkpointing: an older name of memory=least"),
        ({"memory": "less"}, "memory"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(options, said):
    with pytest.raises(OptionError, match=said) as caught:
        TrainOptions(steps=1, **options)
    assert "\n" not in str(caught.value)


def test_a_bound_that_nothing_keeps_is_refused_before_training():
    model = tiny(gn.LoRA(rank=2))
    before = tensors_of(model)
    with pytest.raises(
        OptionError, match=r"^train.memory_gb: a step of 4 pictures takes .* MB with blocks run again, and"
    ):
        fit(model, Blobs(every(4)), steps=1, batch_size=4, memory_gb=0.0005, **SHORT)
    assert all(torch.equal(t, before[n]) for n, t in tensors_of(model).items()) and model.backbone.memory == "lean"
    model.compile(backend="eager")
    with pytest.raises(OptionError, match=r"^train.memory_gb: what a compiled model keeps cannot be planned"):
        fit(model, Blobs(every(4)), steps=1, memory_gb=1, **SHORT)


@pytest.mark.parametrize(
    ("options", "level"), [({}, "lean"), ({"memory": "fast"}, "fast"), ({"checkpointing": True}, "least")]
)
def test_the_option_is_what_the_steps_use_and_is_undone(options, level):
    model = tiny()
    model.backbone.memory, seen = ("fast", "lean", "least", "fast"), []
    model.backbone.register_forward_hook(lambda *_: seen.append(model.backbone.memory))
    fit(model, Blobs(every(2)), steps=1, **SHORT, **options)
    assert seen[-1] == level and model.backbone.memory == ("fast", "lean", "least", "fast")


def test_a_resumed_run_keeps_its_levels_and_is_equal_bit_by_bit(tmp_path, monkeypatch):
    options = SHORT | {"steps": 3, "batch_size": N, "save_every": 1, "memory_gb": 0.0005, "lr": 1e-2}
    whole = tiny()
    fit(whole, Blobs(every(16), sizes=[SIZE]), out=tmp_path / "whole", **options)
    cut = Blobs(every(16), sizes=[SIZE])
    cut.kill_at = 16 + 9
    with pytest.raises(SystemExit):
        fit(tiny(), cut, out=tmp_path / "cut", **options)
    model = tiny()
    step = TrainingStep(model, TASKS, balancing_of(None).build(TASKS), TrainOptions(steps=1))
    saved = load_run(tmp_path / "cut", step).facts
    assert 0 < saved["state"].step < 3 and len(set(saved["levels"])) > 1

    def planned(*_: object) -> None:
        raise AssertionError("planned anew")

    monkeypatch.setattr(run_memory, "plan_levels", planned)
    fit(model, Blobs(every(16), sizes=[SIZE]), resume=tmp_path / "cut", **options)
    assert all(torch.equal(t, tensors_of(whole)[n]) for n, t in tensors_of(model).items())


def test_a_bound_changes_no_result_that_levels_do_not(tmp_path: Path):
    """Also not its passes that find each task's gradients: running statistics, dropout and warnings are the same."""
    ends = []
    for given in ({"memory": "fast"}, {"memory_gb": 1.0}):
        model = tiny(head=gn.SegFormerHead(channels=8))
        fit(model, Blobs(PARTIAL), steps=3, batch_size=2, accumulate=2, lr=1e-2, **SHORT, **given)
        ends.append(tensors_of(model))
    assert all(torch.equal(t, ends[1][n]) for n, t in ends[0].items())


def test_features_that_are_kept_are_planned_with(tmp_path):
    options = SHORT | {"steps": 2, "batch_size": 2, "variants": 1, "cache": tmp_path / "kept"}
    result = fit(tiny(gn.Frozen()), Keyed(every(4), sizes=[SIZE]), memory_gb=1, **options)
    assert result.steps == 2 and not [w for w in result.warnings if "memory" in w]


# ---- where it cannot be simulated -------------------------------------------------------------------------------


class Keyed(Blobs):
    def key(self, index: int) -> str:
        return f"{index}"


class Looks(nn.Module):
    def forward(self, x):
        assert x.sum().item() == x.sum().item()
        return x


def test_what_reads_values_is_counted_in_a_real_step():
    model = tiny(head=gn.SegFormerHead(channels=8))
    model.head("seg").append(Looks()) if isinstance(model.head("seg"), nn.Sequential) else model.head(
        "seg"
    ).register_forward_hook(lambda _, __, out: Looks()(out))
    before = tensors_of(model)
    result = fit(model, Blobs(every(4), sizes=[SIZE]), steps=1, batch_size=2, memory_gb=1, lr=1e-30, **SHORT)
    assert [w for w in result.warnings if w.startswith("memory: counted in real steps, as one cannot be predicted (")]
    once = tiny(head=gn.SegFormerHead(channels=8))
    fit(once, Blobs(every(4), sizes=[SIZE]), steps=1, batch_size=2, memory="fast", lr=1e-30, **SHORT)
    assert any("running" in name for name in before)
    assert all(torch.equal(t, tensors_of(once)[n]) for n, t in tensors_of(model).items())


def test_a_real_step_counts_what_a_simulated_one_does():
    step = step_of("plain", gn.LoRA(rank=2, dropout=0.1))
    before, state = tensors_of(step.model), torch.get_rng_state()
    real, fake = simulated(step, is_real=True, gaps=True), simulated(step, gaps=True)
    for levels in (("fast",) * 4, ("lean", "least", "fast", "lean")):
        assert real.peak(levels, N) == fake.peak(levels, N)
    assert real.counts("lean", N) == fake.counts("lean", N)
    assert torch.equal(torch.get_rng_state(), state) and not any(p.grad is not None for p in step.trained.values())
    assert all(torch.equal(t, before[n]) for n, t in tensors_of(step.model).items())


# ---- the batch size ---------------------------------------------------------------------------------------------


def test_more_pictures_fit_where_less_is_kept():
    sim = simulated(step_of("plain", gn.LoRA(rank=2)))
    found = {}
    bound = 600_000
    for memory in ("fast", None):
        options = TrainOptions(steps=1, batch_size="auto", memory=memory)
        count, plan = largest_batch(sim, options, bound, 300)
        assert plan.levels == (options.level,) * 4
        assert sim.peak(plan.levels, count) == plan.peak_bytes <= bound < sim.peak(plan.levels, count + 1)
        found[memory] = count
    assert found["fast"] < found[None]
    assert largest_batch(sim, TrainOptions(steps=1, batch_size="auto"), bound, 3)[0] == 3
    lean, least = (sim.peak((level,) * 4, 1) for level in ("lean", "least"))
    assert sim.kept_bytes < least < lean
    count, plan = largest_batch(sim, TrainOptions(steps=1, batch_size="auto"), lean - 1, 300)
    assert count == 1 and "least" in plan.levels and plan.peak_bytes < lean
    with pytest.raises(OptionError, match=r"one picture takes .* MB, the bound is .* MB; raise memory_gb, or train on"):
        largest_batch(sim, TrainOptions(steps=1, batch_size="auto"), least - 1, 300)
    with pytest.raises(OptionError, match="raise memory_gb, set memory to least, or train on"):
        largest_batch(sim, TrainOptions(steps=1, batch_size="auto", memory="lean"), lean - 1, 300)


# ---- plans ------------------------------------------------------------------------------------------------------


def test_a_plan_keeps_what_fits_only_in_the_least_memory(monkeypatch):
    _, name, options = tiny_models.BACKBONES["vit"]
    monkeypatch.setattr(surveys, "baseline_bytes", lambda: 0)
    setting = Setting(ShapedTrunk(name, options), {"depth": TASKS["depth"]}, None, 8, (64, 64))
    free = surveys.survey(setting, Budget(memory_bytes=10**9), ["SSF"], most=0).rows[0].predicted
    assert free.memory == "lean"
    (row,) = surveys.survey(setting, Budget(memory_bytes=free.memory_bytes - 1), ["SSF"], most=0).rows
    assert row.predicted.memory == "least" and row.predicted.memory_bytes < free.memory_bytes
    assert row.predicted.macs == free.macs
    none = surveys.survey(setting, Budget(memory_bytes=row.predicted.memory_bytes - 1), ["SSF"], most=0)
    assert none.rows == [] and "needs" in none.left_out["SSF"]
