"""Bundles whose tasks are loaded under other names: the same outputs to the last bit, whatever method and head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import garnish as gn
import tiny
from garnish.errors import BundleError, OptionError
from joint_cases import joint_heads

NAMES = {"seg": "b3-seg", "depth": "b3-depth", "normals": "seg"}


def outputs(model: gn.Model, names: dict[str, str] | None = None) -> dict[str, Tensor]:
    with torch.no_grad():
        found = model.eval()(tiny.pictures(), [[(names or {}).get(t, t) for t in asked] for asked in tiny.MIX])
    return {task: found[(names or {}).get(task, task)] for task in tiny.TASKS}


def check(model: gn.Model, short: str, folder: Path) -> None:
    """A model's bundle, loaded under other names, saved and loaded again, gives what the model gives."""
    gn.save(model, folder / "a", dtype="float32")
    plain = gn.load(folder / "a", backbone=tiny.backbone(short))
    renamed = gn.load(folder / "a", backbone=tiny.backbone(short), names=NAMES)
    want, found = outputs(plain), outputs(renamed, NAMES)
    assert set(renamed.tasks) == set(NAMES.values())
    gn.save(renamed, folder / "b", dtype="float32")
    again = outputs(gn.load(folder / "b", backbone=tiny.backbone(short)), NAMES)
    for task in tiny.TASKS:
        assert torch.equal(found[task], want[task]) and torch.equal(again[task], want[task]), task


@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per task"])
@pytest.mark.parametrize("short", tiny.BACKBONES)
@pytest.mark.slow
def test_every_method_on_every_family(short, per_task, tmp_path):
    for number, case in enumerate(tiny.method_cases()):
        if not tiny.refusals(case, short):
            check(tiny.model(short, tiny.methods(case, per_task=per_task)), short, tmp_path / str(number))


@pytest.mark.parametrize("case", ["LoRA", "MTLoRA", "VMTAdapter", "PolyhistorLite", "BitFit", "VPT", "SideTuning"])
def test_methods_of_every_kind(case, tmp_path):
    short = next(short for short in ("vit", "swin", "mit") if not tiny.refusals(case, short))
    check(tiny.model(short, tiny.methods(case, per_task=False)), short, tmp_path)


@pytest.mark.parametrize("head", [name for name in joint_heads() if name in gn.registry.classes("heads")])
def test_heads_that_tasks_share(head, tmp_path):
    tasks = {name: gn.registry.build("tasks", *spec) for name, spec in tiny.TASKS.items()}
    model = gn.adapt(tiny.backbone("mit"), gn.LoRA(rank=2, per_task=True), tasks, joint_heads()[head])
    tiny.randomise_own(model)
    check(model, "mit", tmp_path)


def test_bundles_with_equal_names_live_in_one_model(tmp_path):
    model = tiny.model("mit", gn.LoRA(rank=2))
    first = outputs(model)
    gn.save(model, tmp_path / "one", dtype="float32")
    tiny.randomise_own(model, seed=5)
    second = outputs(model)
    gn.save(model, tmp_path / "two", dtype="float32", tasks=["seg", "depth", "normals"])
    both = gn.load(tmp_path / "one", backbone=tiny.backbone("mit"))
    names = {task: f"b2-{task}" for task in tiny.TASKS}
    assert set(both.load(tmp_path / "two", names=names)) == set(names.values())
    assert all(torch.equal(out, first[task]) for task, out in outputs(both).items())
    assert all(torch.equal(out, second[task]) for task, out in outputs(both, names).items())
    both.remove(list(names.values()))
    assert list(both.tasks) == list(gn.load(tmp_path / "one", backbone=tiny.backbone("mit")).tasks)


def test_what_is_told_by_task_follows_the_names(tmp_path):
    told = {"trained_at": {"seg": {"size": [64, 96], "scale": [1, 1]}}}
    gn.save(tiny.model("mit", gn.LoRA(rank=2), tasks=["seg"]), tmp_path / "one", extra=told)
    model = gn.load(tmp_path / "one", backbone=tiny.backbone("mit"), names={"seg": "other"})
    scale = model.owner_of("other").scale
    assert scale is not None and scale.size == (64, 96)


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        ({"sag": "x"}, OptionError, "has no task 'sag'; did you mean 'seg'?"),
        ({"seg": "depth"}, OptionError, "both become 'depth'"),
        ({"seg": "x", "depth": "x"}, OptionError, "both become 'x'"),
        ({"seg": "a+b"}, BundleError, "use letters"),
        ({"seg": "there"}, BundleError, "is there already"),
    ],
)
def test_names_that_cannot_be_are_refused_in_one_line(tmp_path, names, error, says):
    gn.save(tiny.model("mit", gn.LoRA(rank=2)), tmp_path / "one")
    gn.save(tiny.model("mit", gn.LoRA(rank=2), tasks=["seg"]), tmp_path / "two")
    model = gn.load(tmp_path / "two", backbone=tiny.backbone("mit"), names={"seg": "there"})
    with pytest.raises(error) as caught:
        model.load(tmp_path / "one", names=names)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert list(model.tasks) == ["there"]


def test_names_are_of_one_bundle(tmp_path):
    gn.save(tiny.model("mit", gn.LoRA(rank=2), tasks=["seg"]), tmp_path / "one")
    gn.save(tiny.model("mit", gn.LoRA(rank=2), tasks=["depth"]), tmp_path / "two")
    with pytest.raises(OptionError, match="2 are given"):
        gn.load([tmp_path / "one", tmp_path / "two"], backbone=tiny.backbone("mit"), names={"seg": "x"})
