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
@torch.inference_mode()
def test_owners_share_a_pass_that_part_behind_the_first_block(short):
    """Those of the first block share nothing worth it; a block is one residual or two, by family."""
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
    assert passes == {first: {2}, second: {1}}
