"""Every memory level computes what plain autograd does: outputs, gradients, random numbers, buffers; and keeps less."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor

import garnish as gn
import joint_cases
import tiny
from garnish.errors import OptionError
from garnish.model.model import Model
from memory_cases import (
    Operations,
    check_levels,
    differences,
    gradients,
    kept_bytes,
    made,
    mixed,
    tolerance_of,
    training_pass,
)

pytestmark = pytest.mark.usefixtures("one_thread")

#: a few of the product, so that each family and each kind of method is run; the rest is slow
FEW = {
    ("vit", "LoRA"),
    ("vit", "LoRA-rank-dora"),
    ("vit", "MTLoRA"),
    ("vit", "VPT"),
    ("vit", "Mona"),
    ("vit", "PolyhistorLite"),
    ("swin", "BitFit"),
    ("dinov3", "Pfeiffer+NormTuning"),
    ("dinov2", "BitFit"),
    ("convnext", "LoRA"),
    ("convnext", "FullFineTuning"),
    ("mit", "VMTAdapter"),
    ("cnn", "SSF"),
    ("cnn", "SideTuning"),
    ("cnn", "FullFineTuning"),
}
PRODUCT = [
    pytest.param(short, case, marks=[] if (short, case) in FEW else pytest.mark.slow)
    for short in tiny.BACKBONES
    for case in tiny.method_cases()
]


def pictures_of(short: str) -> Tensor:
    """One picture fewer than tasks, not square; of three sizes that the trunk takes."""
    return tiny.pictures(3, 56, 42) if short == "dinov2" else tiny.pictures(3, 64, 48)


@pytest.mark.parametrize(("short", "case"), PRODUCT)
def test_gradients_are_those_of_plain_autograd(short, case):
    """Shared and owned by task, all tasks and a mix of them, with drop-path where the trunk has it."""
    if tiny.refusals(case, short):
        pytest.skip("the method does not fit the family")
    for per_task in (False, True):
        model = made(short, tiny.methods(case, per_task=per_task), drop_path=0.0 if short == "cnn" else 0.3)
        many = (short, case) not in FEW
        for tasks in (None, tiny.MIX) if many else (tiny.MIX,):
            check_levels(
                model,
                None if many else ("lean", "least", mixed(model)),
                tolerance_of(short, case),
                tasks=tasks,
                pictures=pictures_of(short),
            )


@pytest.mark.parametrize("short", ["vit", "swin", "mit"])
def test_dropout_draws_the_same_numbers(short):
    """``training_pass`` compares torch's random state after forward and after backward too."""
    model = made(short, gn.LoRA(rank=2, dropout=0.3), drop_path=0.4)
    check_levels(model, tolerance=tolerance_of(short, "LoRA"))
    first, other = (training_pass(model, "least", seed=seed) for seed in (5, 6))
    assert differences(first, other), "what is drawn matters"


@pytest.mark.parametrize("short", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_owners_of_several_methods_in_one_batch(short):
    model = made(short, gn.LoRA(rank=2, dropout=0.1), tasks=("seg",), drop_path=0.2)
    model.add(gn.AdaptFormer(bottleneck=4, dropout=0.1), {"normals": gn.Normals()})
    model.add(gn.LoRA(rank=2, dora=True), {"more": gn.Depth()})
    model.add(gn.FullFineTuning(), {"full": gn.Depth()})
    model.double().train()
    tiny.randomise_own(model)
    wanted = [["seg", "normals"], ["full", "more"], ["more", "seg"]]
    check_levels(model, ("lean", "least", mixed(model)), 1e-10, tasks=wanted)
    model.freeze(["seg"])
    check_levels(model, ("lean", "least"), 1e-10, tasks=wanted)


@pytest.mark.parametrize("label", joint_cases.joint_heads())
def test_joint_heads(label):
    model = made("vit", gn.LoRA(rank=2, per_task=True), head=joint_cases.joint_heads()[label])
    check_levels(model, ("lean", "least"), 1e-10)


@pytest.mark.parametrize("short", ["vit", "mit", "cnn"])
@pytest.mark.parametrize("trained", ["all", "a third", "none but the pictures"])
def test_a_trunk_without_adapters(short, trained):
    trunk = tiny.backbone(short).double().train()
    for number, parameter in enumerate(trunk.parameters()):
        parameter.requires_grad_(trained == "all" or (trained == "a third" and number % 3 == 0))
    found = {}
    for level in ("fast", "lean", "least"):
        trunk.memory = level
        trunk.zero_grad(set_to_none=True)
        x = tiny.pictures(2).double().requires_grad_()
        torch.manual_seed(4)
        sum((maps**2).mean() for maps in trunk(x)).backward()
        found[level] = {"pictures": x.grad, **gradients(trunk)}
        assert found[level]["pictures"].abs().max() > 0
    for level in ("lean", "least"):
        assert differences(found[level], found["fast"], tolerance_of(short, "")) == {}


def reduced_pass(model: Model, level: str, cast: bool) -> dict[str, Tensor | None]:
    """Maps' sum of squares and gradients in bfloat16, under autocast or throughout."""
    model.backbone.memory = level
    model.zero_grad(set_to_none=True)
    x = tiny.pictures().to(next(model.parameters()).dtype)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16) if cast else contextlib.nullcontext():
        maps = model.backbone(model.prepare(x), model.owners[0])
    sum((m.float() ** 2).mean() for m in maps).backward()
    return {f"map {i}": m.detach() for i, m in enumerate(maps)} | gradients(model.backbone)


@pytest.mark.parametrize("method", [gn.SSF(), gn.LoRA(rank=2, dora=True), gn.Mona(), gn.FullFineTuning()], ids=repr)
@pytest.mark.parametrize("cast", [True, False], ids=["autocast", "bfloat16"])
@pytest.mark.parametrize("short", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_bfloat16_is_the_same_to_the_bit(short, cast, method):
    model = made(short, method, dtype=torch.float32 if cast else torch.bfloat16, drop_path=0.2)
    want = reduced_pass(model, "fast", cast)
    for level in ("lean", "least"):
        got = reduced_pass(model, level, cast)
        # the weight of DoRA on windows of swin is a sum over another order
        assert differences(got, want, 0.02 if "LoRA" in repr(method) else 0.0) == {}, level


@pytest.mark.parametrize("cast", [True, False], ids=["autocast", "bfloat16"])
@pytest.mark.parametrize("short", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_one_product_in_bfloat16_is_as_near_the_truth_as_two(short, cast):
    """Truth is float64 with the same weights, which bfloat16 can hold."""
    model = made(short, gn.LoRA(rank=4), dtype=torch.bfloat16)

    def vector(level: str, dtype: torch.dtype, autocast: bool) -> Tensor:
        found = reduced_pass(model.to(dtype), level, autocast)
        model.to(torch.bfloat16)
        return torch.cat([t.double().flatten() for n, t in found.items() if t is not None and "lora" in n])

    truth = vector("fast", torch.float64, False)
    dtype = torch.float32 if cast else torch.bfloat16
    errors = {level: float((vector(level, dtype, cast) - truth).norm() / truth.norm()) for level in ("fast", "lean")}
    assert 0 < errors["fast"] < 0.5 and errors["lean"] < 2 * errors["fast"] + 0.002, errors


# ---- what is kept ---------------------------------------------------------------------------------------------------

METHODS = {
    "LoRA": gn.LoRA(rank=4),
    "DoRA": gn.LoRA(rank=4, dora=True),
    "SSF": gn.SSF(),
    "Mona": gn.Mona(),
    "full": gn.FullFineTuning(),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("short", ["vit", pytest.param("swin", marks=pytest.mark.slow), "mit"])
def test_lean_keeps_less_and_least_keeps_least(short, name):
    """Bytes of storages alive between the passes, counted from outside; all go with the outputs."""
    model = made(short, METHODS[name], tasks=("seg",), dtype=torch.float32)
    pictures = tiny.pictures(2, 128, 128)
    fast, lean, some, least = (kept_bytes(model, level, pictures) for level in ("fast", "lean", mixed(model), "least"))
    assert lean < 0.95 * fast, (lean, fast)
    assert least < 0.95 * lean, (least, lean)
    assert least < some < fast


# ---- where nothing is kept, and the setter --------------------------------------------------------------------------


@pytest.mark.parametrize("short", ["vit", pytest.param("swin", marks=pytest.mark.slow), "mit"])
@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_passes_without_gradients_run_the_same_operations(short, without):
    for method in (gn.LoRA(rank=2), gn.LoRA(rank=2, dora=True), gn.Mona()):
        model = made(short, method, dtype=torch.float32)
        names, pictures = {}, tiny.pictures(1)
        for level in ("fast", "lean", "least"):
            model.backbone.memory = level
            with without(), Operations() as seen:
                model(pictures)
            names[level] = seen.names
        assert names["lean"] == names["fast"] == names["least"] and len(names["fast"]) > 50


@pytest.mark.export
def test_exports_are_the_same_graph():
    model = made("vit", gn.LoRA(rank=2), dtype=torch.float32).eval()
    graphs = []
    for memory in ("fast", "lean", "least"):
        model.backbone.memory = memory
        program = torch.export.export(model.backbone, (model.prepare(tiny.pictures(2)),))
        graphs.append([str(node.target) for node in program.graph.nodes])
    assert graphs[0] == graphs[1] == graphs[2]


@pytest.mark.compile
@pytest.mark.slow
# torch's own, while it traces a head's input
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dora", [False, True])
def test_compiled_passes_have_the_same_gradients(backend, dora):
    found = {}
    for level in ("fast", "lean", "least"):
        torch._dynamo.reset()
        model = made("vit", gn.LoRA(rank=2, dora=dora), dtype=torch.float32)
        model.backbone.memory = level
        model.compile(backend=backend)
        tiny.one_loss(model(tiny.pictures(2))).backward()
        found[level] = gradients(model)
    torch._dynamo.reset()
    for level in ("lean", "least"):
        assert differences(found[level], found["fast"], 1e-5) == {}


@pytest.mark.parametrize(
    "bad",
    ["leanest", "", None, 1, True, ("lean",), ("lean",) * 5, ("lean", "least", "fast", "slow"), {"lean": 1}, [[]]],
)
def test_other_levels_are_refused_and_the_old_one_stays(bad):
    trunk = tiny.backbone("vit")
    trunk.memory = ("lean", "least", "fast", "lean")
    with pytest.raises(OptionError, match=r"vit_tiny_patch16_224\.memory"):
        trunk.memory = bad
    assert trunk.memory == ("lean", "least", "fast", "lean") and trunk.levels == trunk.memory


def test_lean_is_the_default_and_levels_may_be_given_block_by_block():
    trunk = tiny.backbone("swin")
    assert trunk.memory == "lean" and trunk.levels == ("lean",) * 8
    trunk.memory = ["least", *["fast"] * 7]
    assert trunk.memory == trunk.levels == ("least", *("fast",) * 7)
    trunk.memory = ["least"] * 8
    assert trunk.levels == ("least",) * 8
