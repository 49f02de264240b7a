"""Memory levels under transforms of ``torch.func``, and where something changes between forward and backward."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from garnish.model.model import Model
from memory_cases import Storages, made
from memory_runs import LEVELS, METHODS, Found, backward, compare, loss, pictures

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(
    params=[
        "vit-LoRA",
        "vit-DoRA",
        *(pytest.param(case, marks=pytest.mark.slow) for case in ("swin-LoRA", "mit-SSF")),
    ],
    scope="module",
)
def model(request) -> Model:
    short, name = request.param.split("-")
    return made(short, METHODS[name], drop_path=0.1)


# ---- transforms -----------------------------------------------------------------------------------------------------


def trunk_loss(model: Model, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Of the trunk alone: the decoders' resizing refuses transforms at every level."""
    maps = functional_call(model.backbone, parameters, (model.prepare(x), model.owners[0]))
    return sum(((m**2).mean() for m in maps), torch.zeros((), dtype=torch.float64))


def other_values(model: Model) -> dict[str, Tensor]:
    return {n: p.detach() * 1.3 for n, p in model.backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", ["grad", "vmap", "jvp"])
def test_transforms_of_torch_func(model, kind):
    def run() -> Found:
        values = other_values(model)
        with sdpa_kernel(SDPBackend.MATH):
            if kind == "grad":
                return dict(grad(lambda p: trunk_loss(model, p, pictures()))(values))
            if kind == "vmap":
                per_picture = grad(lambda p, x: trunk_loss(model, p, x[None]))
                return dict(vmap(per_picture, in_dims=(None, 0))(values, pictures()))
            along = {n: torch.ones_like(v) for n, v in values.items()}
            return dict(zip("yt", jvp(lambda p: trunk_loss(model, p, pictures()), (values,), (along,)), strict=True))

    model.eval()
    try:
        compare(model, run)
    finally:
        model.train()


def outside(model: Model) -> Found:
    """Gradients of values that stood in for the module's own in the forward pass alone."""
    values = {n: v.requires_grad_() for n, v in other_values(model).items()}
    total = trunk_loss(model, values, pictures())
    return dict(zip(values, torch.autograd.grad(total, list(values.values()), allow_unused=True), strict=True))


def test_backward_outside_a_functional_call():
    model = made("vit", METHODS["DoRA"])
    compare(model, lambda: outside(model), ("lean",))


@pytest.mark.parametrize("label", METHODS)
def test_backward_of_blocks_that_run_again_outside_a_functional_call_is_refused(label):
    model = made("vit", METHODS[label])
    model.backbone.memory = "least"
    with pytest.raises(RuntimeError, match="or replaced since the forward pass"):
        outside(model)


# ---- what changes between the passes --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["fast", *LEVELS])
@pytest.mark.parametrize("whose", ["trained", "frozen"])
def test_weights_that_change_in_place_before_the_backward_pass_are_refused(model, whose, level):
    model.backbone.memory = level
    changed = [p for p in model.backbone.parameters() if p.requires_grad == (whose == "trained")]
    total, before = loss(model), [p.detach().clone() for p in changed]
    try:
        with torch.no_grad():
            for p in changed:
                p.mul_(1.01)
        with pytest.raises(RuntimeError, match=r"in ?place"):
            total.backward()
    finally:
        with torch.no_grad():
            for p, old in zip(changed, before, strict=True):
                p.copy_(old)


def test_level_may_change_between(model):
    def run() -> Found:
        level = model.backbone.memory
        total = loss(model)
        model.backbone.memory = "least" if level == "fast" else "fast"
        return backward(model, total)

    compare(model, run)


def test_copies_and_pickles(model):
    def run() -> Found:
        total, other = loss(model), copy.deepcopy(model)
        third = pickle.loads(pickle.dumps(other))
        assert third.backbone.memory == other.backbone.memory == model.backbone.memory
        found = backward(model, total)
        for number, one in enumerate((other, third)):
            one.zero_grad()
            torch.manual_seed(7)
            found |= {f"{number} {n}": g for n, g in backward(one, loss(one)).items()}
        return found

    compare(model, run)


@pytest.mark.parametrize("level", LEVELS)
def test_memory_goes_without_the_collector(model, level):
    model.backbone.memory = level
    gc.collect()
    gc.disable()
    try:
        with Storages() as counted:
            outputs = model(pictures())
            kept = counted.total
            del outputs  # never differentiated
            assert counted.total < kept / 20
            total = loss(model)
            total.backward()
            del total
            model.zero_grad(set_to_none=True)
            assert counted.total < kept / 20
    finally:
        gc.enable()
