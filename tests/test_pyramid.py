"""Maps of a plain ViT as a pyramid, by hand: strides, half-pixel bilinear growth, means over what there is."""

from __future__ import annotations

import torch

from garnish.engine.blocks import FeatureInfo
from garnish.heads.head import is_plain, pyramid_info, resample_pyramid


def test_strides_of_the_pyramid():
    plain = [FeatureInfo(8, 14.0)] * 4
    assert is_plain(plain) and not is_plain(plain[:3]) and not is_plain([*plain[:3], FeatureInfo(8, 28.0)])
    assert [(f.channels, f.stride) for f in pyramid_info(plain)] == [(8, 3.5), (8, 7.0), (8, 14.0), (8, 28.0)]


def test_four_maps_of_one_grid_by_hand():
    row = torch.tensor([[0.0, 8.0, 4.0]]).view(1, 1, 1, 3)
    x = torch.cat([row, row + 16], 2)  # (1, 1, 2, 3)
    four, two, one, half = resample_pyramid([x] * 4)
    assert torch.equal(one, x)
    # Each new pixel lies at (i + ½)/2 − ½ of the old ones, and the border is held.
    along = torch.tensor([0.0, 2.0, 6.0, 7.0, 5.0, 4.0])
    down = torch.tensor([0.0, 4.0, 12.0, 16.0])
    assert torch.allclose(two, (down[:, None] + along)[None, None])
    assert four.shape == (1, 1, 8, 12)
    assert torch.allclose(four[0, 0, 0], torch.tensor([0, 0, 1, 3, 5, 7, 7.5, 6.5, 5.5, 4.5, 4, 4]))
    # Squares of two pixels a side; what reaches over the border is a mean of what lies inside.
    assert torch.equal(half, torch.tensor([[[[12.0, 12.0]]]]))
