"""Positions for exported graphs: the learnt table as a bicubic resize in float64, the rotary one as timm makes it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import garnish
import tiny
from garnish.backbones.open_positions import resampled, rotary
from garnish.errors import OptionError


@pytest.mark.parametrize("new", [(5, 7), (16, 12), (40, 3), (37, 37), (100, 2), (1, 1), (17, 13)])
@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_table_is_resampled_as_a_bicubic_resize(new, prefix, antialias):
    table = torch.randn(1, prefix + 16 * 12, 8)
    got = resampled(table, (16, 12), new, prefix, antialias=antialias)
    square = table[0, prefix:].double().T.reshape(1, 8, 16, 12)
    want = F.interpolate(square, size=new, mode="bicubic", antialias=antialias, align_corners=False).flatten(2)[0].T
    assert torch.equal(got[:, :prefix], table[:, :prefix])
    assert tiny.far(got[0, prefix:], want) < 3e-6


def test_at_its_own_size_a_table_is_itself():
    table = torch.randn(1, 15, 4)
    assert tiny.far(resampled(table, (5, 3), (5, 3), 0), table) < 1e-6


@pytest.mark.parametrize("grid", [(5, 7), (1, 1), (33, 2)])
@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224"])
def test_a_rotary_table_is_timms(name, grid):
    rope = garnish.backbone(
        name, options={"embed_dim": 24, "depth": 4, "num_heads": 3, "img_size": 64 - 64 % 14}
    ).stem.rope
    assert torch.equal(rotary(rope, grid), rope.get_embed(shape=grid))


def test_rotary_positions_of_another_kind_are_refused():
    rope = tiny.backbone("dinov3").stem.rope
    rope.normalize_coords = "max"
    with pytest.raises(OptionError, match="smaller side"):
        rotary(rope, (3, 4))
