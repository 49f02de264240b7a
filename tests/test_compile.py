"""The adapted trunk compiles to one graph for every mix of tasks; heads compile apart; export runs.

Dynamo alone is under test, so graphs run eagerly: whether there is one graph does not depend on what runs it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import garnish
import tiny
from compiling import ALL_MIXES, EACH, NAMES, SAME, Counting, trunk_graphs
from garnish import registry
from garnish.engine.context import Rows
from garnish.model.model import Model


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # a reset leaves what other tests counted
    yield
    torch._dynamo.reset()


@pytest.mark.compile
@pytest.mark.parametrize(
    "short", ["dinov2", "swin", *(pytest.param(short, marks=pytest.mark.slow) for short in ("mit", "dinov3"))]
)
def test_one_graph_serves_every_mix(short):
    model = tiny.model(short, garnish.LoRA(rank=2, per_task=True))
    assert trunk_graphs(model, ALL_MIXES) == 1


@pytest.mark.compile
@pytest.mark.parametrize("short", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_joined_owners_of_different_methods_compile_to_one_graph(short):
    model = tiny.model(short, garnish.LoRA(rank=2), tasks=("seg", "depth"))
    model.add(garnish.AdaptFormer(bottleneck=4), {"normals": registry.build("tasks", "Normals")}, freeze_others=True)
    tiny.randomise_own(model)
    assert trunk_graphs(model.eval(), ALL_MIXES) == 1


@pytest.mark.compile
def test_weights_that_differ_by_row_compile_to_one_graph():
    model = tiny.model("vit", garnish.LoRA(rank=2, dora=True, per_task=True))
    assert trunk_graphs(model, [ALL_MIXES[0], ALL_MIXES[6], *EACH[:2]]) == 1


@pytest.mark.compile
def test_shared_adapters_compile_to_one_graph():
    model = tiny.model("vit", garnish.LoRA(rank=2))
    assert trunk_graphs(model, [[list(m)] * 2 for m in SAME] + EACH[1:]) == 1


# torch's own, while it traces a head's input
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.compile
def test_heads_compile_apart_and_gradients_stay():
    counting = Counting()
    model = tiny.model("vit", garnish.LoRA(rank=2, per_task=True))
    compiled = tiny.model("vit", garnish.LoRA(rank=2, per_task=True))
    compiled.compile(backend=counting)
    found = []
    for one in (model, compiled):
        one.train()
        tiny.one_loss(one(tiny.pictures(2), EACH[1])).backward()
        found.append({n: p.grad for n, p in one.trained_parameters().items()})
    # one graph of the trunk and one of each task's head, all of which were asked for
    assert counting.graphs == 1 + len(NAMES)
    assert list(found[0]) == list(found[1])
    for name, want in found[0].items():
        assert tiny.far(found[1][name], want) < 1e-5, name


@pytest.mark.compile
def test_the_public_way_of_compiling():
    model = tiny.model("vit", garnish.LoRA(rank=2, per_task=True), tasks=("seg",))
    x = tiny.pictures(2, 97, 131)
    with torch.no_grad():
        want = model(x)
        model.compile(backend="eager")
        got = model(x)
    for task, out in want.items():
        assert got[task].shape[-2:] == (97, 131)
        assert tiny.far(got[task], out) < 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


class Mixed(torch.nn.Module):
    """A pass of several owners as a graph sees it: rows are tensors, and how many an owner has is not known."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, row_images: Tensor, row_owners: Tensor) -> tuple[Tensor, ...]:
        owners = self.model.owners
        return self.model.backbone(x, owners, Rows(row_images, row_owners, owners, None))


@pytest.mark.export
@pytest.mark.parametrize("short", ["dinov2", "swin", "mit"])
@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per_task"])
def test_exports(short, per_task):
    model = tiny.model(short, garnish.LoRA(rank=2, per_task=per_task))
    x = model.prepare(tiny.pictures(2))
    rows = (torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1])), (torch.tensor([1, 1, 1]), torch.tensor([2, 0, 1]))
    module = Mixed(model) if per_task else model.backbone
    with torch.no_grad():
        program = torch.export.export(module, (x, *(rows[0] if per_task else ())))
        for inputs in ((x, *rows[0]), (x + 1, *rows[1])):
            inputs = inputs if per_task else inputs[:1]
            want, got = module(*inputs), program.module()(*inputs)
            assert len(got) == len(want)
            assert all(tiny.far(mine, other) < 1e-5 for mine, other in zip(got, want, strict=True))


@pytest.mark.compile
def test_dropout_of_a_task_that_trains_leaves_a_frozen_one_alone():
    """In a compiled pass adapters of one method run together, but for those that are not in training mode."""
    method = garnish.AdaptFormer(bottleneck=16, dropout=0.5, per_task=True)
    model = tiny.model("vit", method, tasks=("seg", "depth"))
    x = tiny.pictures(2)
    model.freeze(["seg"])
    with torch.no_grad():
        want = model(x)["seg"]
        model.train()
        model.compile(backend="eager")
        one, two = model(x), model(x)
    assert tiny.far(one["seg"], want) < 1e-5 and torch.equal(one["seg"], two["seg"])
    assert tiny.far(one["depth"], two["depth"]) > 1e-3
