"""What comes, goes or fails beside passes and copies leaves all else as it was: trunks, modes, types, names."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import garnish as gn
import tiny
from garnish.engine.compiled import CompiledTrunk
from garnish.engine.owner import Owner
from garnish.errors import OptionError

SEG, DEPTH = gn.Semantic(classes=5), gn.Depth()


class Watched(nn.Module):
    """Notes each time that it is put into training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[bool] = []

    def __setattr__(self, name, value):
        if name == "training" and "noted" in self.__dict__:
            self.noted.append(value)
        super().__setattr__(name, value)


@pytest.mark.parametrize("method", [gn.LoRA(rank=2), gn.FullFineTuning()])
def test_modules_of_the_trunk_are_not_in_training_mode_for_a_moment(method):
    # batch norms would take over the statistics of a pass that another thread runs
    model = tiny.model("cnn", method, tasks=("seg",))
    watched = Watched()
    model.backbone.body.stem.add_module("watched", watched)
    model.train()
    model.add(gn.LoRA(rank=2), {"a": DEPTH})
    model.remove(["a"])
    assert watched.noted and not any(watched.noted)


def test_batch_norms_keep_their_statistics_where_all_is_tuned():
    model = tiny.model("cnn", gn.FullFineTuning(), tasks=("seg",)).train()
    before = {name: tensor.clone() for name, tensor in model.backbone.frozen_tensors().items()}
    model(tiny.pictures(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.backbone.frozen_tensors().items())


def test_paths_drop_no_longer_once_those_that_train_are_gone():
    _, name, options = tiny.BACKBONES["vit"]
    model = gn.adapt(gn.backbone(name, options=options, drop_path=0.9), gn.LoRA(rank=2), {"seg": SEG})
    model.freeze(["seg"])
    model.add(gn.LoRA(rank=2), {"depth": DEPTH})
    model.train()
    model.remove(["depth"])
    first, second = (model(tiny.pictures())["seg"] for _ in range(2))
    assert torch.equal(first, second)


def test_of_several_owners_all_are_placed_or_none(monkeypatch):
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("normals",))
    owners, names, lay_out, calls = model.owners, set(model.own_tensors()), Owner.lay_out, []

    def short_of_memory(owner, body):
        calls.append(owner)
        if len(calls) == 2:
            raise MemoryError
        lay_out(owner, body)

    monkeypatch.setattr(Owner, "lay_out", short_of_memory)
    with pytest.raises(MemoryError):
        model.add(gn.BitFit(per_task=True), {"seg": SEG, "depth": DEPTH})
    assert model.owners == owners and set(model.own_tensors()) == names and list(model.tasks) == ["normals"]
    model.add(gn.BitFit(per_task=True), {"seg": SEG, "depth": DEPTH})
    assert list(model(tiny.pictures(1))) == ["normals", "seg", "depth"]


@pytest.mark.parametrize("method", [gn.LoRA(rank=2), gn.BitFit(), gn.SideTuning(), gn.VPT(prompts=2)])
def test_what_is_added_to_a_converted_model_has_its_type(method):
    model = tiny.model("vit", gn.LoRA(rank=2), tasks=("seg",)).double()
    model.add(method, {"depth": DEPTH})
    assert {tensor.dtype for tensor in model.own_tensors().values()} == {torch.float64}
    assert {out.dtype for out in model(tiny.pictures(1)).values()} == {torch.float64}


def test_a_model_is_copied_though_tensors_that_were_put_in_place_are_gone():
    model = tiny.model("vit", gn.BitFit(), tasks=("seg",))
    before = model(tiny.pictures(1))["seg"]
    functional_call(model, {name: 2 * p for name, p in model.named_parameters()}, (tiny.pictures(1),))
    assert torch.equal(copy.deepcopy(model)(tiny.pictures(1))["seg"], before)


@pytest.mark.compile
def test_a_compiled_pass_ends_as_it_began_though_an_owner_of_it_is_removed(monkeypatch):
    torch._dynamo.reset()
    model = tiny.model("vit", gn.BitFit(), tasks=("seg",))
    model.add(gn.LoRA(rank=2), {"depth": DEPTH})
    tiny.randomise_own(model)
    before = model(tiny.pictures(1))
    model.compile(backend="eager")

    run = CompiledTrunk.__call__

    def gone(compiled, images, step):  # planned, and not run yet
        if "depth" in model.tasks:
            model.remove(["depth"])
        return run(compiled, images, step)

    monkeypatch.setattr(CompiledTrunk, "__call__", gone)
    with torch.no_grad():
        during = model(tiny.pictures(1))
        assert list(model.tasks) == list(model(tiny.pictures(1))) == ["seg"]
    assert list(during) == ["seg", "depth"]
    assert all(tiny.far(during[name], before[name]) < 1e-5 for name in before)
    torch._dynamo.reset()


def test_what_a_picture_wants_is_not_guessed():
    model = gn.adapt(tiny.backbone("vit"), gn.LoRA(rank=2), {"a": SEG, "b": SEG, "ab": SEG})
    for tasks in (["ab", ["a"]], [["a"], "b"], {("a",), ("b",)}):
        with pytest.raises(OptionError, match="give a list of lists, with no names beside them"):
            model(tiny.pictures(2), tasks)
    with pytest.raises(OptionError, match="holds \\['a'\\] for a picture"):
        model(tiny.pictures(2), [[["a"]], ["b"]])
    assert {task: len(out) for task, out in model(tiny.pictures(2), [{"ab", "a"}, ("b",)]).items()} == {
        "a": 1,
        "b": 1,
        "ab": 1,
    }


@pytest.mark.parametrize("method", [gn.LoRA(rank=2), gn.LoRA(rank=2, per_task=True), gn.MTLoRA(rank=2)], ids=repr)
@pytest.mark.parametrize("short", ["vit", "swin", "mit"])
def test_a_batch_without_pictures_has_the_shapes_of_one_with(short, method):
    model = tiny.model(short, method, tasks=("seg", "depth")).double()
    want = {task: (0, *out.shape[1:]) for task, out in model(tiny.pictures(1, 50, 64)).items()}
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            found = model(tiny.pictures(1, 50, 64)[:0], ["seg", "depth"])
        assert {task: tuple(out.shape) for task, out in found.items()} == want
        assert all(out.dtype == torch.float64 for out in found.values())
    assert model(tiny.pictures(1)[:0]) == {}
