"""The plain trunks that methods are compared on equal the package's, and two methods that are known to be right."""

from __future__ import annotations

import pytest
import torch

import tiny
from plain_trunks import affine, attend, layer_norm, position_bias
from whole_trunk import built, double_model, heads_input, method, parts, pixels, plain, plain_input, whole_trunk_equals


@pytest.mark.parametrize("short", ["swin", "vit"])
def test_plain_trunks_are_the_trunks(short):
    model = double_model(short, method("Frozen"))
    want = heads_input(model, pixels(short))["seg"]
    maps = plain(short, model).maps(plain_input(model, pixels(short)))
    assert len(maps) == len(want)
    for ours, theirs in zip(maps, want, strict=True):
        assert ours.shape == theirs.shape and tiny.far(ours, theirs) <= 1e-12


def test_a_side_of_one_window_is_not_shifted_whatever_the_other_is():
    """Libraries differ here. Maps of 16x64, 8x32, 4x16 and 2x8: the third is shifted along one side only."""
    model = double_model("swin", method("Frozen"))
    wide = tiny.pictures(1, 64, 256).double()
    want = heads_input(model, wide)["seg"]
    for ours, theirs in zip(plain("swin", model).maps(plain_input(model, wide)), want, strict=True):
        assert tiny.far(ours, theirs) <= 1e-12


def test_pieces_by_hand():
    x = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        layer_norm(x, torch.tensor([2.0, 2.0]), torch.tensor([0.0, 1.0]), 3.0), torch.tensor([[1.0, 0.0]]).double()
    )
    assert affine(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0]]), torch.tensor([5.0])).item() == 16.0
    # queries and keys of zero: every token gets the mean of the values; a bias of -100 takes one out
    qkv = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 3.0]]], dtype=torch.float64)
    assert attend(qkv, 1).flatten().tolist() == [2.0, 2.0]
    alone = attend(qkv, 1, torch.tensor([[[0.0, -100.0], [0.0, 0.0]]]))
    assert alone.flatten().tolist() == [1.0, 2.0]
    # offsets (0, 0), (1, 0) and (0, -1) of a window of 7
    table = torch.arange(169.0)[:, None]
    bias = position_bias(table)[0]
    assert (bias[5, 5], bias[7, 0], bias[0, 1]) == (84.0, 97.0, 83.0)


@built("AdaptFormer")
@pytest.mark.parametrize("short", ["swin", "vit"])
def test_adaptformer_on_the_whole_trunk(short):
    model = double_model(short, method("AdaptFormer", bottleneck=6, scale=0.3))
    own = parts(model)

    def edit(site, x, y):
        if site not in own:
            return y
        p = own[site]
        hidden = torch.relu(affine(x, p["down.weight"], p["down.bias"]))
        return y + 0.3 * affine(hidden, p["up.weight"], p["up.bias"])

    whole_trunk_equals(short, model, edit)


@built("LoRA")
@pytest.mark.parametrize("short", ["swin", "vit"])
def test_lora_on_the_whole_trunk(short):
    model = double_model(short, method("LoRA", rank=2, alpha=3.0, layers=["qkv", "fc2"]))
    own = parts(model)
    assert {site.rsplit(".", 1)[1] for site in own} == {"qkv", "fc2"}
    whole_trunk_equals(
        short,
        model,
        lambda site, x, y: y + 1.5 * affine(affine(x, own[site]["lora_a"]), own[site]["lora_b"]) if site in own else y,
    )
