"""Where a task's first adapter stands, its rows part from the images': at every unit of every family.

A unit is the stem, a stage's entrance, a residual of a block, or what leaves a stage. A pass of several tasks gives
each the numbers of a pass of its own (in float64, to rounding), whichever unit the fork falls on.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import garnish as gn
import tiny
from garnish.engine.blocks import bare
from garnish.engine.shared_passes import stream_bytes

BOUND = 1e-12


def first_layers(short: str) -> dict[int, str]:
    """Unit → one layer there that low-rank updates of rank 2 fit."""
    found: dict[int, str] = {}
    for site, module in tiny.backbone(short).sites_with_modules():
        layer = bare(module)
        if site.kind == "layer" and isinstance(layer, nn.Linear | nn.Conv2d) and getattr(layer, "groups", 1) == 1:
            found.setdefault(site.unit, site.name)
    return found


def units_of_blocks(short: str) -> set[int]:
    """The units of all blocks."""
    return {site.unit for site in tiny.backbone(short).sites() if site.block >= 0}


@pytest.mark.parametrize("short", tiny.BACKBONES)
@torch.inference_mode()
def test_tasks_together_equal_tasks_alone_wherever_they_part(short):
    layers = first_layers(short)
    assert layers.keys() >= units_of_blocks(short), "every residual of every block can be forked at"
    pictures = tiny.pictures(2).double()
    for unit, layer in layers.items():
        model = tiny.model(short, gn.LoRA(rank=2, layers=(layer,), per_task=True), tasks=("seg", "depth")).double()
        # one picture wants both tasks, the other one of them
        together = model(pictures, [["seg", "depth"], ["depth"]])
        for task, rows in (("seg", pictures[:1]), ("depth", pictures)):
            alone = model(rows, [[task]] * len(rows))[task]
            assert together[task].shape == alone.shape
            assert tiny.far(together[task], alone) <= BOUND, f"unit {unit}, {layer}, {task}"


@pytest.mark.parametrize("short", ["vit", "swin", "mit"])
@torch.inference_mode()
def test_tasks_on_mlp_layers_from_the_second_stage_on(short):
    """The fork falls on the last residual of a block: what comes before it is shared, what comes behind it is not."""
    trunk = tiny.backbone(short)
    names = tuple(
        site.name
        for site in trunk.sites()
        if site.kind == "layer" and site.place == "mlp" and site.stage >= 1 and site.role in ("fc1", "fc2")
    )
    model = tiny.model(short, gn.LoRA(rank=2, layers=names, per_task=True), tasks=("seg", "depth")).double()
    pictures = tiny.pictures(2).double()
    together = model(pictures)
    for task in ("seg", "depth"):
        assert tiny.far(together[task], model(pictures, [[task]] * 2)[task]) <= BOUND


@pytest.mark.parametrize("short", tiny.BACKBONES)
@pytest.mark.parametrize("large", [False, True])
@torch.inference_mode()
def test_owners_share_a_pass_that_part_behind_the_first_block_or_are_small(short, large, monkeypatch):
    """Of the first block they share the reading of weights alone; a block is one residual or two, by family."""
    if large:
        monkeypatch.setattr("garnish.engine.shared_passes.OWN_PASS_FROM", stream_bytes(tiny.backbone(short), 64, 64))
    trunk = tiny.backbone(short)
    block_of = {site.name: (site.stage, site.block) for site in trunk.sites() if site.block >= 0}
    first, second = sorted(set(block_of.values()))[:2]
    passes: dict[tuple[int, int], set[int]] = {first: set(), second: set()}
    for layer in first_layers(short).values():
        if block_of.get(layer) in passes:
            model = tiny.model(short, gn.LoRA(rank=2, layers=(layer,), per_task=True), tasks=("seg", "depth"))
            calls: list[int] = []
            model.backbone.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            model(tiny.pictures(1))
            passes[block_of[layer]].add(len(calls))
    assert passes == {first: {2 if large else 1}, second: {1}}


@pytest.mark.parametrize(("short", "taps"), [*((short, "stage") for short in tiny.BACKBONES), ("swin", "merged")])
@torch.inference_mode()
def test_bytes_of_a_pictures_stream(short, taps):
    """Told from the feature maps: those of the first block's input, but for a class token and a padded grid."""
    trunk = tiny.backbone(short)
    if taps == "merged":
        trunk.read_merged()
    seen: list[int] = []
    first = next(unit for unit in trunk.units if unit.kind == "residual")
    first.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].nbytes))
    trunk(tiny.pictures(1, 112, 112), ())
    least = 0.2 if short == "cnn" else 0.7  # the first block of this one halves the sides
    assert least <= stream_bytes(trunk, 112, 112) / seen[0] <= 1.0


def test_the_pictures_of_a_task_count_for_how_it_runs():
    """In one batch, a task of many pictures takes a pass of its own, those of few share one."""
    model = tiny.model("vit", gn.LoRA(rank=2, per_task=True), tasks=("seg", "depth", "normals"))
    trunk = model.backbone
    calls: list[int] = []
    trunk.register_forward_hook(lambda *_: calls.append(1))
    pictures = tiny.pictures(5, 64, 64)
    asked = [["seg"], ["seg"], ["seg"], ["depth"], ["normals"]]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("garnish.engine.shared_passes.OWN_PASS_FROM", 3 * stream_bytes(trunk, 64, 64))
        model(pictures, asked)
    assert len(calls) == 2
