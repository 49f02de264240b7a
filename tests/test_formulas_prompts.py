"""VPT, shallow and deep, on a plain ViT and inside Swin's windows, against plain forwards in float64.

Jia et al., Visual Prompt Tuning, ECCV 2022. Maps and gradients of every prompt and of the pictures; the transcriptions
take named tensors and share no code with the package. Shape letters: R rows, H W map, p prompts, C channels.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

import tiny
from garnish.model.model import Model
from plain_trunks import DEPTHS, HEADS, SHIFT, WINDOW, SwinTrunk, ViTTrunk
from whole_trunk import (
    TASKS,
    built,
    double_model,
    encoder_leaves,
    heads_input,
    method,
    pixels,
    plain,
    plain_input,
    same,
)

PROMPTS = 5
WIDTHS = (24, 48, 96, 192)


# ---- the formulas ---------------------------------------------------------------------------------------------------


def prompted_vit(trunk: ViTTrunk, pictures: Tensor, sets: list[Tensor]) -> list[Tensor]:
    """``[class, P_l, patches]`` enters block l; of one set, what comes out of a block enters the next."""
    x, maps = trunk.stem(pictures), []
    carried = None
    for s in range(4):
        if s < len(sets):
            carried = sets[s].expand(len(x), -1, -1)
        x = trunk.block(f"stages.{s}.blocks.0", torch.cat([x[:, :1], carried, x[:, 1:]], 1))
        carried, x = x[:, 1 : 1 + len(sets[0])], torch.cat([x[:, :1], x[:, 1 + len(sets[0]) :]], 1)
        maps.append(trunk.map_of(s, x))
    return maps


def prompted_swin_block(
    trunk: SwinTrunk, name: str, x: Tensor, prompts: Tensor, heads: int, shift: int
) -> tuple[Tensor, Tensor]:
    """One block on the map and on the prompts, which attention joins to every window."""
    at = f"{name}.attn"
    context, of_prompts = trunk.attention(
        at, trunk.norm(f"{at}.norm", x), heads, shift, trunk.norm(f"{at}.norm", prompts)
    )
    assert of_prompts is not None
    x, prompts = x + trunk.linear(f"{at}.proj", context), prompts + trunk.linear(f"{at}.proj", of_prompts)
    at = f"{name}.mlp"
    return x + trunk.mlp(at, trunk.norm(f"{at}.norm", x)), prompts + trunk.mlp(at, trunk.norm(f"{at}.norm", prompts))


def merged_prompts(trunk: SwinTrunk, stage: int, prompts: Tensor) -> Tensor:
    """Four copies side by side through the norm and reduction of the merging, (R, p, C) → (R, p, 2C)."""
    return trunk.merge_channels(stage, torch.cat([prompts] * 4, -1))


def prompted_swin(trunk: SwinTrunk, pictures: Tensor, sets: list[Tensor]) -> list[Tensor]:
    """One set is carried through blocks and mergings; of several, each block starts with its own."""
    x, maps, number = trunk.stem(pictures), [], 0
    prompts = sets[0].expand(len(x), -1, -1)
    for s, depth in enumerate(DEPTHS):
        if s:
            x, prompts = trunk.merge(s, x), merged_prompts(trunk, s, prompts)
        for b in range(depth):
            if len(sets) > 1:
                prompts = sets[number].expand(len(x), -1, -1)
            x, prompts = prompted_swin_block(trunk, f"stages.{s}.blocks.{b}", x, prompts, HEADS[s], SHIFT * (b % 2))
            number += 1
        maps.append(trunk.feature(s, x))
    return maps


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_prompts_in_windows_by_hand():
    # queries and keys are 0, values are the inputs: every token gets the mean of its window's 49 tokens and the prompt
    t = {
        "a.qkv.weight": torch.tensor([[0.0], [0.0], [1.0]]).double(),
        "a.relative_position_bias_table": torch.zeros(169, 1).double(),
    }
    x = torch.ones(1, WINDOW, 2 * WINDOW, 1).double()
    x[:, :, WINDOW:] = 3.0
    out, prompts = SwinTrunk(t).attention("a", x, heads=1, shift=0, prompts=torch.full((1, 1, 1), 51.0).double())
    left, right = (49 + 51) / 50, (147 + 51) / 50
    torch.testing.assert_close(out[0, :, :, 0], torch.tensor([[left] * 7 + [right] * 7] * 7).double())
    assert prompts is not None and prompts.item() == pytest.approx((left + right) / 2, rel=1e-12)


def test_prompts_have_no_position_and_no_mask_by_hand():
    # a bias of 100 between tokens and none to the prompt: it is out of sight; the mask then hides no prompt either
    t = {
        "a.qkv.weight": torch.tensor([[0.0], [0.0], [1.0]]).double(),
        "a.relative_position_bias_table": torch.full((169, 1), 100.0).double(),
    }
    x = torch.full((1, WINDOW, 2 * WINDOW, 1), 2.0).double()
    out, prompts = SwinTrunk(t).attention("a", x, heads=1, shift=3, prompts=torch.full((1, 1, 1), 52.0).double())
    torch.testing.assert_close(out, torch.full_like(out, 2.0))
    assert prompts is not None and prompts.item() == pytest.approx((49 * 2 + 52) / 50, rel=1e-12)


def test_merging_of_prompts_by_hand():
    # four copies of (1, 3), which the norm makes (-1, 1); the reduction adds the odd channels and takes the first
    picks = torch.zeros(2, 8).double()
    picks[0, 1::2], picks[1, 0] = 1.0, 1.0
    t = {"weight": torch.ones(8).double(), "bias": torch.zeros(8).double()}
    named = {f"stages.1.enter.norm.{leaf}": v for leaf, v in t.items()} | {"stages.1.enter.reduction.weight": picks}
    y = merged_prompts(SwinTrunk(named, eps=0.0), 1, torch.tensor([[[1.0, 3.0]]]).double())
    torch.testing.assert_close(y, torch.tensor([[[4.0, -1.0]]]).double())


@pytest.mark.parametrize("short", ["vit", "swin"])
def test_no_prompts_are_the_plain_trunk(short):
    model = double_model(short, method("Frozen"))
    trunk, pictures = plain(short, model), plain_input(model, pixels(short))
    forward = prompted_swin if short == "swin" else prompted_vit
    none = forward(trunk, pictures, [torch.zeros(0, 24 if short == "swin" else 48).double()])
    for ours, theirs in zip(none, trunk.maps(pictures), strict=True):
        assert tiny.far(ours, theirs) <= 1e-12


# ---- VPT ------------------------------------------------------------------------------------------------------------


def prompt_sets(model: Model) -> list[Tensor]:
    """Every own tensor of the encoder is prompts; cut into sets (p, C) in forward order of their names."""

    def order(name: str) -> list[tuple[int, str]]:
        return [(int(n), "") if n.isdigit() else (-1, n) for n in re.split(r"\.", name)]

    own = encoder_leaves(model)
    assert own, "nothing is trained in the encoder"
    return [part for name in sorted(own, key=order) for part in own[name].reshape(-1, *own[name].shape[-2:])]


@built("VPT")
@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
@pytest.mark.parametrize("short", ["vit", "swin"])
def test_vpt_on_the_whole_trunk(short, deep):
    model = double_model(short, method("VPT", prompts=PROMPTS, deep=deep))
    sets = prompt_sets(model)
    widths = [d for d in WIDTHS for _ in range(2)] if short == "swin" else [48] * 4
    assert [tuple(part.shape) for part in sets] == [(PROMPTS, d) for d in (widths if deep else widths[:1])]
    pictures = pixels(short).clone().requires_grad_()
    forward = prompted_swin if short == "swin" else prompted_vit
    maps = forward(plain(short, model), plain_input(model, pictures), sets)
    leaves = {**encoder_leaves(model), "pictures": pictures}
    same(heads_input(model, pictures), dict.fromkeys(TASKS, maps), leaves)


@built("VPT")
@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
@pytest.mark.parametrize("short", ["vit", "dinov2", "dinov3", "swin"])
def test_the_order_of_prompts_is_nothing(short, deep):
    """Prompts have no position: neither a rotary one nor a relative one."""
    model = double_model(short, method("VPT", prompts=PROMPTS, deep=deep))
    before = heads_input(model, pixels(short))["seg"]
    with torch.no_grad():
        for part in prompt_sets(model):
            part.copy_(part.flip(0))
    after = heads_input(model, pixels(short))["seg"]
    assert max(tiny.far(a, b) for a, b in zip(after, before, strict=True)) <= 1e-12
    with torch.no_grad():
        prompt_sets(model)[0][0, 0].add_(1.0)
    assert tiny.far(heads_input(model, pixels(short))["seg"][-1], before[-1]) > 1e-6


@built("VPT")
@pytest.mark.parametrize("deep", [False, True], ids=["shallow", "deep"])
@pytest.mark.parametrize(("short", "patch", "width"), [("vit", 16, 48), ("swin", 4, 24)])
def test_vpt_starts_uniform(short, patch, width, deep):
    """In ±√(6 / (3 patch² + d)), d that of the first stage in all stages."""
    model = tiny.model(short, method("VPT", prompts=50, deep=deep), tasks=TASKS, own=False)
    most = math.sqrt(6 / (3 * patch**2 + width))
    for part in prompt_sets(model):
        assert 0.97 * most < part.abs().max() <= most
        assert part.min() < 0 < part.max()


def test_prompts_are_read_in_swin_v2():
    """Their position bias is the middle of those of positions, 8 of 0 to 16: with 0, e⁸ times less of them is read."""
    model = tiny.model("swinv2", tiny.methods("VPT", per_task=False), tasks=("depth",))
    x = tiny.pictures(1, 64, 64)
    with torch.no_grad():
        before = model.backbone(model.prepare(x))
        for parameter in dict(model.owners[0].named_trained()).values():
            parameter.mul_(-1.0)
        after = model.backbone(model.prepare(x))
    assert tiny.far(after[0], before[0]) > 1e-3
