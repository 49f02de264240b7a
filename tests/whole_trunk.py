"""Own tensors of a model by site, the maps its heads get, and their comparison with a plain forward in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

import garnish
import tiny
from garnish import registry
from garnish.engine.adapter import Method
from garnish.model.model import Model, adapt
from plain_trunks import Edit, SwinTrunk, Trunk, ViTTrunk

BOUND = 1e-10
TASKS = ("seg", "depth")

#: site → leaf → tensor
Parts = dict[str, dict[str, Tensor]]


def built(name: str) -> pytest.MarkDecorator:
    """Skips while there is no such method; runs from the moment there is."""
    return pytest.mark.skipif(name not in registry.classes("adapters"), reason=f"not built yet: {name}")


def method(name: str, **options: object) -> Method:
    return registry.build("adapters", name, options)


def double_model(short: str, added: Method, *, taps: str | None = None) -> Model:
    """A tiny model for two tasks in float64, every tensor random, in evaluation mode."""
    if taps is None:
        return tiny.model(short, added, tasks=TASKS).double()
    _, name, options = tiny.BACKBONES[short]
    trunk = garnish.backbone(name, options=options, taps=taps)
    tiny.randomise_trunk(trunk)
    specs = {task: registry.build("tasks", *tiny.TASKS[task]) for task in TASKS}
    model = adapt(trunk, added, specs)
    tiny.randomise_own(model)
    return model.eval().double()


@cache
def pixels(short: str) -> Tensor:
    """Two pictures; those for Swin leave three by four windows, the last ones partly filled, after the stem."""
    return tiny.pictures(2, 64, 96 if short == "swin" else 64).double()


def plain_input(model: Model, pictures: Tensor) -> Tensor:
    # the model keeps both in float32 from the start
    mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in (model.backbone.mean, model.backbone.std))
    return (pictures - mean) / std


def heads_input(model: Model, pictures: Tensor) -> dict[str, list[Tensor]]:
    """Task → the maps its head is given."""
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        model.head(task).register_forward_pre_hook(lambda _, args, task=task: seen.update({task: list(args[0])}))
        for task in model.tasks
    ]
    model(pictures)
    for hook in hooks:
        hook.remove()
    return seen


def parts(model: Model, task: str | None = None) -> Parts:
    """Adapter tensors shared by the tasks, or those that ``task`` owns beside them."""
    found: Parts = {}
    sites = "|".join(re.escape(site.name) for site in model.backbone.sites())
    for name, tensor in model.own_tensors().items():
        match = re.fullmatch(rf"adapters\.([^.]+)\.({sites})\.\d+\.(.+)", name)
        if match is None:
            assert not name.startswith("adapters."), name
            continue
        owner, site, leaf = match.groups()
        of_task = next((t for t in model.tasks if owner == t or owner.endswith(f":{t}")), None)
        if of_task == task:
            found.setdefault(site, {})[leaf] = tensor
    return found


def trunk_tensors(model: Model) -> dict[str, Tensor]:
    """Canonical name → frozen tensor, or the tuned one in its place."""
    tuned = {n.split(".", 2)[2]: t for n, t in model.own_tensors().items() if n.startswith("tuned.")}
    frozen = model.backbone.frozen_tensors()
    assert tuned.keys() <= frozen.keys()
    return {**frozen, **tuned}


def plain(short: str, model: Model, edit: Edit | None = None) -> Trunk:
    trunk = {"swin": SwinTrunk, "vit": ViTTrunk}[short](trunk_tensors(model), eps=1e-5 if short == "swin" else 1e-6)
    if edit is not None:
        trunk.edit = edit
    return trunk


def encoder_leaves(model: Model) -> dict[str, Tensor]:
    return {n: t for n, t in model.trained_parameters().items() if not n.startswith("heads.")}


def same(
    got: Mapping[str, Sequence[Tensor]],
    want: Mapping[str, Sequence[Tensor]],
    leaves: Mapping[str, Tensor],
    *,
    dead: Callable[[str], bool] = lambda name: False,
) -> None:
    """Equal maps and equal gradients of every leaf for one upstream gradient; only ``dead`` leaves may have none."""
    assert got.keys() == want.keys()
    pairs = [(a, b) for key in want for a, b in zip(got[key], want[key], strict=True)]
    ours, theirs = torch.zeros(()), torch.zeros(())
    for number, (a, b) in enumerate(pairs):
        assert a.shape == b.shape and tiny.far(a, b) <= BOUND, f"map {number}: {tiny.far(a, b):.1e}"
        generator = torch.Generator().manual_seed(number)
        upstream = torch.randn(b.shape, generator=generator, dtype=b.dtype) / b.numel() ** 0.5
        ours, theirs = ours + (a * upstream).sum(), theirs + (b * upstream).sum()
    if not leaves:
        return
    of_ours = torch.autograd.grad(ours, list(leaves.values()), retain_graph=True, allow_unused=True)
    of_theirs = torch.autograd.grad(theirs, list(leaves.values()), allow_unused=True)
    for name, a, b in zip(leaves, of_ours, of_theirs, strict=True):
        if b is None or not b.any():
            assert dead(name), f"{name} has no part in the formula"
            assert a is None or not a.any(), name
        else:
            assert a is not None and tiny.far(a, b) <= BOUND, name


def whole_trunk_equals(short: str, model: Model, edit: Edit) -> None:
    """Every task's maps equal the plain trunk's with ``edit`` at its sites; gradients of own tensors and pictures."""
    pictures = pixels(short).clone().requires_grad_()
    maps = plain(short, model, edit).maps(plain_input(model, pictures))
    same(
        heads_input(model, pictures), dict.fromkeys(model.tasks, maps), {**encoder_leaves(model), "pictures": pictures}
    )
