"""What every method must survive on its way out of the process: bundles, compiled and exported models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import garnish
import tiny
from compiling import EACH, SAME, trunk_graphs
from conformance.cases import every, every_costly, every_slow, made, plans
from garnish.model.model import Model


@every
def test_bundles_give_the_model_back(case, short, per_task, tmp_path):
    model = made(case, short, per_task)
    x = tiny.pictures()
    with torch.no_grad():
        for kept in (list(tiny.TASKS), ["depth"], ["seg", "normals"]):
            model.save(tmp_path / "bundle", dtype="float32", tasks=kept)
            loaded = garnish.load(tmp_path / "bundle", backbone=tiny.backbone(short))
            assert list(loaded.tasks) == kept
            mix = [[task for task in tasks if task in kept] for tasks in tiny.MIX]
            want, got = model(x, mix), loaded(x, mix)
            assert list(got) == list(want) == kept
            for task in kept:
                assert torch.equal(got[task], want[task]), task
            # nothing of a task that is left out, everything of those kept
            left_out = set(tiny.TASKS) - set(kept)
            names = {name for owner in loaded.owners for name in (*owner.tasks, *owner.root.tasks)}
            assert names == set(kept) and not any(task in name for task in left_out for name in loaded.own_tensors())
            own = {name: t for name, t in model.own_tensors().items() if belongs(model, name, kept)}
            assert sum(t.numel() for t in loaded.own_tensors().values()) == sum(t.numel() for t in own.values())


def belongs(model: Model, name: str, kept: list[str]) -> bool:
    """Whether a tensor is of one of these tasks' heads, of an owner one of them uses, or of the part of one."""
    owner = name.split(".", 2)[1]
    tasks = owner.rsplit(":", 1)[-1].split("+")
    return not set(tasks).isdisjoint(kept)


class Fixed(nn.Module):
    """A model for a fixed list of tasks: pictures in, a tuple out."""

    def __init__(self, model: Model, tasks: list[str]) -> None:
        super().__init__()
        self.model = model
        self.tasks = tasks

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images, self.tasks).values())


@pytest.mark.export
@every_costly
def test_exports_for_a_fixed_list_of_tasks(case, short, per_task):
    fixed = Fixed(made(case, short, per_task), ["seg", "normals"])
    x = tiny.pictures(2)
    with torch.no_grad():
        program = torch.export.export(fixed, (x,)).module()
        for pictures in (x, x.flip(0)):  # nothing of the first pictures was baked in
            for got, want in zip(program(pictures), fixed(pictures), strict=True):
                assert tiny.far(got, want) < 1e-5
        assert tiny.far(program(x)[0], program(x.flip(0))[0]) > 1e-2


@pytest.mark.compile
@every_slow
def test_compiles_to_one_graph_a_pass(case, short, per_task):
    """One graph serves every mix; owners that tune in place or carry prompts take a pass each, and so a graph each."""
    model = made(case, short, per_task)
    found = plans(case, short, per_task)
    streams = any(plan.own and plan.routing == "stream" for plan in found)
    apart = per_task and (streams or any(plan.tuned or plan.prompts for plan in found))
    # each of the apart owners' passes holds the pictures that want it: mixes in which all pictures want the same
    mixes = [[list(tasks)] * 2 for tasks in (SAME if apart else SAME[-1:])] + ([] if apart else EACH[:2])
    assert trunk_graphs(model, mixes) == (len(tiny.TASKS) if apart else 1)
