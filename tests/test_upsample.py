"""Upsampling to pixels: what torch's own gives, and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import garnish as gn
import tiny
from garnish.heads.layers.upsample import upsample


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(3, 4), (12, 16), (13, 9), (2, 11)])
def test_values_and_gradient_are_those_of_torch(size, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 4, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(2, 5, *size, generator=generator).to(dtype)
    found = []
    for function in (upsample, lambda x, size: F.interpolate(x, size=size, mode="bilinear", align_corners=False)):
        own = x.detach().requires_grad_()
        made = function(own, size)
        (made * weight).sum().backward()
        found.append((made.detach(), own.grad))
    exact = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    assert found[0][0].dtype == dtype
    torch.testing.assert_close(found[0][0], found[1][0], atol=exact, rtol=exact)
    torch.testing.assert_close(found[0][1], found[1][1], atol=exact, rtol=exact)


def test_gradients_in_float64():
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: upsample(x, (5, 7)), (x,))


@torch.inference_mode()
def test_without_gradients_it_is_torch_s_own():
    x = torch.randn(1, 2, 3, 4)
    assert torch.equal(upsample(x, (6, 8)), F.interpolate(x, size=(6, 8), mode="bilinear", align_corners=False))


@torch.inference_mode()
def test_outputs_are_cut_from_those_of_the_padded_picture():
    """A side that the trunk's stride does not divide is padded: outputs keep their scale and lose the padding."""
    model = tiny.model("vit", gn.Frozen(), tasks=("seg",))
    x = torch.randn(1, 48, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = model.decode({"seg": [x] * 4}, (64, 64))["seg"]
    part = model.decode({"seg": [x] * 4}, (61, 50))["seg"]
    assert whole.shape[-2:] == (64, 64) and torch.equal(part, whole[..., :61, :50])
