"""Training through ``torch.compile``: what plain training does, in few graphs, and plain again where it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garnish as gn
import tiny
from compiling import Counting
from garnish import registry
from garnish.engine.compiled import CompiledTrunk
from garnish.engine.shared_passes import Pass
from garnish.errors import GarnishError, OptionError
from garnish.model.compiled_passes import CompiledPasses
from garnish.model.model import Model
from garnish.training import compiled_steps
from garnish.training.fit import fit
from garnish.training.train_options import TrainOptions
from training_cases import PARTIAL, QUIET, TASKS, Blobs, every, tensors_of

pytestmark = [
    pytest.mark.compile,
    # torch's own, while it traces a head's input
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
FOUR = ("seg", "depth", "normals", "parts")
#: what each of two pictures wants; "normals" is wanted by none
SOME = [["seg"], ["depth", "seg"]]
#: (method, options without dropout, whose draws may differ)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoRA", {"rank": 2, "per_task": True}),
    "MTLoRA": ("MTLoRA", {"dropout": 0.0}),
    "Mona": ("Mona", {"dropout": 0.0}),
    "SSF": ("SSF", {}),
}
RUN = {"batch_size": 3, "accelerator": "cpu", "check_pictures": 0, **QUIET}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def four_tasks(short: str, method: str) -> Model:
    torch.manual_seed(0)
    specs = {**tiny.TASKS, "parts": ("Semantic", {"classes": 2})}
    made = gn.adapt(
        tiny.backbone(short),
        registry.build("adapters", *METHODS[method]),
        {name: registry.build("tasks", *specs[name]) for name in FOUR},
        gn.LinearHead(),
    )
    tiny.randomise_own(made)
    return made.train()


def gradients(model: Model, mix: Sequence[Sequence[str]], *, bf16: bool = False) -> dict[str, Tensor]:
    """Gradient of each trained tensor; zeros where there is none."""
    like = next(iter(model.trained_parameters().values()))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = model(tiny.pictures(2).to(like.dtype), mix)
    tiny.one_loss({task: out.to(like.dtype) for task, out in outputs.items()}).backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.trained_parameters().items()}
    model.zero_grad(set_to_none=True)
    return found


def test_the_least_difference_is_seen() -> None:
    """What the tests below take for equal would tell a gradient that is off by a thousandth."""
    want = gradients(four_tasks("vit", "SSF").double(), SOME)
    assert all(tiny.far(g * 1.001, g) > 1e-4 for g in want.values() if g.any())


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method", ["Mona", "SSF", *(pytest.param(m, marks=pytest.mark.slow) for m in ("LoRA", "MTLoRA"))]
)
@pytest.mark.parametrize("short", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_gradients_are_those_of_the_plain_model(short: str, method: str, backend: str) -> None:
    plain, model = four_tasks(short, method).double(), four_tasks(short, method).double()
    passes = CompiledPasses(model, backend=backend)
    want = gradients(plain, SOME)
    with passes.used():
        got = gradients(model, SOME)
    assert not model.is_compiled
    assert list(got) == list(want) and any(bool(g.any()) for g in want.values())
    for name, gradient in want.items():
        if gradient.any():
            assert tiny.far(got[name], gradient) < 1e-9, name
        else:
            assert not got[name].any(), name


@pytest.mark.parametrize("method", ["SSF", *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS if m != "SSF")])
def test_in_bfloat16_gradients_are_as_near_to_float32_as_plain_ones(method: str) -> None:
    """To a factor: each row's gradient is rounded by itself there, before those of a task are added up."""
    model = four_tasks("vit", method)
    with torch.no_grad():  # at full size the random updates of LoRA make plain gradients wrong by half in bfloat16
        for name, parameter in model.trained_parameters().items():
            parameter.mul_(0.3 if "lora" in name else 1)
    exact, plain = gradients(model, SOME), gradients(model, SOME, bf16=True)
    with CompiledPasses(model, backend="aot_eager").used():
        got = gradients(model, SOME, bf16=True)

    def off(found: dict[str, Tensor]) -> float:
        """Norm of all differences over that of all gradients."""
        apart = torch.stack([(found[n] - g).norm() for n, g in exact.items()]).norm()
        return float(apart / torch.stack([g.norm() for g in exact.values()]).norm())

    assert 1e-4 < off(plain) < 0.1  # it is in bfloat16 indeed
    assert off(got) < 2 * off(plain)


# ---- whole runs ------------------------------------------------------------------------------------------------------


def small(method: Any = None, head: Any = None) -> Model:
    torch.manual_seed(3)
    options = {"img_size": 64, "embed_dim": 24, "depth": 4, "num_heads": 3}
    trunk = gn.backbone("vit_tiny_patch16_224", options=options)
    return gn.adapt(trunk, method or gn.LoRA(rank=2, per_task=True), TASKS, head or gn.LinearHead())


def same(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float = 1e-6) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=rtol, atol=rtol / 10, msg=name)


@pytest.fixture
def eagerly(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(compiled_steps, "BACKEND", counting)
    return counting


def test_a_compiled_run_is_the_plain_one_in_few_graphs(eagerly: Counting, capsys: pytest.CaptureFixture[str]) -> None:
    """Batches whose mixes, pictures a task, and validation pictures' sizes vary; adapters that no picture asks for."""
    ends, metrics = [], []
    for compiled in (False, True):
        model = small(head=gn.SegFormerHead(channels=8, dropout=0.0)).double()
        val = Blobs(every(3), seed=1, sizes=((48, 64), (32, 48), (64, 64)))
        shown = RUN | {"progress": compiled}
        result = fit(model, Blobs(PARTIAL), val, steps=8, eval_every=4, lr=1e-2, compile=compiled, **shown)
        assert not model.is_compiled
        assert all(module._compiled_call_impl is None for _, module in model.decoders.each())
        ends.append(tensors_of(model))  # running statistics too: the warm-up is undone
        metrics.append([list(entry["metrics"]["depth"].values()) for entry in result.history])
    same(*ends)
    assert torch.allclose(torch.tensor(metrics[0]), torch.tensor(metrics[1]), rtol=1e-6)
    # trunk: rows of a number that is open, and of 1; each head: a number, another, and 1
    assert 3 <= eagerly.graphs <= 8
    said = capsys.readouterr().err
    before, after = said.index("compiling trunk and heads before the first step"), said.index("compiled in ")
    assert before < after < said.index("step 1/8")
    assert said.count("worth little on a CPU") == 1


def test_what_no_picture_asks_for_does_not_decay(eagerly: Counting) -> None:
    """One graph gives zeros, not None, to adapters of other tasks; AdamW must pass them over all the same."""
    model = small()
    before = tensors_of(model)
    fit(model, Blobs([["seg"]] * 4), steps=4, lr=1e-2, weight_decay=10.0, compile=True, **RUN)
    after = tensors_of(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not {name for name in moved if "depth" in name}


@pytest.mark.parametrize("fails", ["compile", "later", pytest.param("backward", marks=pytest.mark.slow)])
def test_where_compiling_fails_the_run_goes_on_plain(
    fails: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch._dynamo.backends.common import aot_autograd

    made = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        made.append(graph)
        if fails == "compile" or (fails == "later" and len(made) > 3):
            raise RuntimeError("no compiler\nfound here")
        return graph.forward

    def no_backward(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        raise RuntimeError("no compiler\nfound here")

    chosen = backend if fails != "backward" else aot_autograd(fw_compiler=lambda g, i: g, bw_compiler=no_backward)
    monkeypatch.setattr(compiled_steps, "BACKEND", chosen)
    ends = []
    for compiled in (False, True):
        model = small(gn.LoRA(rank=2), gn.SegFormerHead(channels=8, dropout=0.0)).double()
        result = fit(model, Blobs(PARTIAL), steps=8, accumulate=2, seed=1, lr=1e-2, compile=compiled, **RUN)
        assert result.steps == 8 and not model.is_compiled
        ends.append(tensors_of(model))
    same(*ends)
    lines = [line for line in result.warnings if "goes on uncompiled" in line]
    assert len(lines) == 1 and "\n" not in lines[0]
    assert lines[0].startswith("train.compile: compiling failed (") and "no compiler found here" in lines[0]
    assert capsys.readouterr().err.count("goes on uncompiled") == 1
    if fails == "later":
        assert len(made) > 3


def test_an_error_that_is_not_of_a_compiled_pass_is_raised(eagerly: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small(gn.LoRA(rank=2)), Blobs(PARTIAL)
    read = Blobs.__getitem__

    def breaks(self: Blobs, index: int) -> Any:
        if self.reads > 8:
            raise RuntimeError("the disk is gone")
        return read(self, index)

    monkeypatch.setattr(Blobs, "__getitem__", breaks)
    with pytest.raises((RuntimeError, GarnishError), match="the disk is gone"):
        fit(model, data, steps=8, compile=True, **RUN)
    assert not model.is_compiled


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_is_resumed_with_compiling_and_without(
    first: bool, eagerly: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from garnish.training.run import Run

    options = RUN | {"steps": 6, "save_every": 1, "lr": 1e-2}
    whole = small(gn.LoRA(rank=2)).double()
    fit(whole, Blobs(PARTIAL), **options)
    finish = Run.finish_step

    def cut(self: Run, *args: Any) -> None:
        finish(self, *args)
        if self.state.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "finish_step", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(small(gn.LoRA(rank=2)).double(), Blobs(PARTIAL), out=tmp_path / "run", compile=first, **options)
    model, before = small(gn.LoRA(rank=2)).double(), eagerly.graphs
    fit(model, Blobs(PARTIAL), resume=tmp_path / "run", compile=not first, **options)
    assert (eagerly.graphs > before) is not first
    same(tensors_of(whole), tensors_of(model))


# ---- graphs ----------------------------------------------------------------------------------------------------------


def test_models_and_heads_do_not_use_up_each_others_graphs() -> None:
    """torch makes at most so many graphs of one code object (8), and then refuses, or runs eagerly in silence."""
    limit, counting = 2, Counting()
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=limit):
        model = many_heads(limit + 1)
        model.compile(backend=counting)
        model(tiny.pictures(2, 32, 32))
        assert counting.graphs == 1 + limit + 1
        for number in range(limit + 1):  # one after the other, as a comparison in one process trains them
            trunk = CompiledTrunk(model.backbone, {"backend": counting})
            trunk(tiny.pictures(2, 32, 32), Pass(None, model.owners[:1], None, {}))
            assert counting.graphs == 1 + limit + 1 + 1 + number


def many_heads(count: int) -> Model:
    tasks = {f"seg{i}": gn.Semantic(classes=2 + i) for i in range(count)}
    return gn.adapt(tiny.backbone("vit"), gn.Frozen(), tasks, gn.LinearHead()).eval()


def test_owners_that_take_passes_of_their_own_do_not_use_up_each_others_graphs() -> None:
    limit, count = 1, 2
    tasks = {f"seg{i}": gn.Semantic(classes=2) for i in range(count)}
    model = gn.adapt(tiny.backbone("vit"), gn.BitFit(per_task=True), tasks, gn.LinearHead()).eval()
    counting = Counting()
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=limit):
        want = model(tiny.pictures(2))
        model.compile(backend=counting)
        got = model(tiny.pictures(2))
    assert all(tiny.far(got[task], want[task]) < 1e-5 for task in tasks)
    assert counting.graphs == 2 * count


# ---- what cannot act as written --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"), [({"checkpointing": True}, "checkpointing"), ({"cache": "kept", "variants": 1}, "train.cache")]
)
def test_options_that_exclude_each_other_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=rf"^train\.compile: .*{says}.*; set one of the two$"):
        TrainOptions(steps=1, compile=True, **given)
    TrainOptions(steps=1, compile=False, **given)


def test_a_model_that_is_compiled_already_is_refused(tmp_path: Path) -> None:
    model = small()
    model.compile(backend="eager")
    for asked in (False, True):
        with pytest.raises(OptionError, match=r"^train: the model is compiled already"):
            fit(model, Blobs(PARTIAL), steps=2, compile=asked, out=tmp_path / "run", **RUN)
    assert model.is_compiled and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_with_the_compiler_itself() -> None:
    """It frees what it keeps in the first backward pass, of which a run's first steps make several: those are plain."""
    ends = []
    for compiled in (False, True):
        model = small()
        result = fit(model, Blobs(PARTIAL), Blobs(every(1)), steps=5, compile=compiled, **RUN)
        assert not any("uncompiled" in line for line in result.warnings)
        ends.append(tensors_of(model))
    same(*ends, rtol=1e-3)
