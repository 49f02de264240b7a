"""What every head must do, on a pyramid and on the four equal maps of a plain ViT."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

import tiny
from garnish import registry
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.head import JointHead, is_plain, pyramid_info, resample_pyramid

PYRAMID = [FeatureInfo(c, s) for c, s in ((8, 4.0), (16, 8.0), (24, 16.0), (32, 32.0))]
PLAIN = [FeatureInfo(12, 14.0)] * 4
OUT = 7

every = pytest.mark.parametrize("name", tiny.HEADS)
both = pytest.mark.parametrize("features", [PYRAMID, PLAIN], ids=["pyramid", "plain"])


def maps(features, count: int = 2) -> list[torch.Tensor]:
    """Raw maps of a picture whose finest grid is 12×20."""
    generator = torch.Generator().manual_seed(0)
    finest = features[0].stride
    return [
        torch.randn(
            count,
            f.channels,
            -(-12 * finest // f.stride).__int__(),
            -(-20 * finest // f.stride).__int__(),
            generator=generator,
        )
        for f in features
    ]


class TwoTasks(nn.Module):
    """A joint decoder of two tasks that read the same maps, called as others are; their outputs side by side."""

    CHANNELS: ClassVar = {"seg": OUT - 3, "normals": 3}

    def __init__(self, joint: nn.Module) -> None:
        super().__init__()
        self.joint = joint

    def forward(self, given: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(self.joint(dict.fromkeys(self.CHANNELS, given)).values()), dim=1)


def built(name: str, features) -> tuple[nn.Module, list[torch.Tensor]]:
    """A head with every parameter random and the maps it gets."""
    torch.manual_seed(0)
    head, given = tiny.example("heads", name), maps(features)
    if head.pyramid and is_plain(features):
        features, given = pyramid_info(features), resample_pyramid(given)
    joint = isinstance(head, JointHead)
    module = TwoTasks(head.build_joint(features, TwoTasks.CHANNELS)) if joint else head.build(features, OUT)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module, given


@every
def test_options_survive_lookup(name):
    head = tiny.example("heads", name)
    assert registry.build("heads", **registry.describe(head)) == head
    with pytest.raises(OptionError, match="no_such_option") as caught:
        registry.build("heads", name, {"no_such_option": 1})
    assert "\n" not in str(caught.value)


@every
@both
def test_one_map_on_the_finest_grid_or_a_multiple_of_it(name, features):
    module, given = built(name, features)
    out = module.eval()(given)
    height, width = given[0].shape[-2:]
    times = out.shape[-2] // height
    assert times >= 1 and out.shape == (2, OUT, times * height, times * width)
    assert out.dtype == torch.float32 and out.isfinite().all() and out.std() > 1e-3


@every
@both
def test_pictures_do_not_see_each_other(name, features):
    module, given = built(name, features)
    module.eval().double()
    given = [x.double() for x in given]
    both = module(given)
    alone = torch.cat([module([x[i : i + 1] for x in given]) for i in range(2)])
    assert tiny.far(both, alone) < 1e-12


@every
@both
def test_features_are_left_as_they_are(name, features):
    module, given = built(name, features)
    before = [x.clone() for x in given]
    module(given)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


@every
@both
def test_every_parameter_learns(name, features):
    module, given = built(name, features)
    module.train()
    tiny.one_loss({"out": module(given)}).backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


@every
def test_gradients_reach_the_features(name):
    module, given = built(name, PYRAMID)
    given = [x.requires_grad_() for x in given]
    tiny.one_loss({"out": module(given)}).backward()
    assert any(x.grad is not None and x.grad.any() for x in given)


@every
def test_deep_copy_is_independent(name):
    module, given = built(name, PYRAMID)
    module.eval()
    before, copied = module(given), copy.deepcopy(module)
    assert torch.equal(copied(given), before)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(2)
    assert torch.equal(module(given), before)
    assert not torch.equal(copied(given), before)


@every
@pytest.mark.parametrize("short", list(tiny.BACKBONES))
def test_serves_every_family_at_any_size(name, short):
    trunk = tiny.backbone(short)
    specs = {"seg": registry.build("tasks", "Semantic", {"classes": 5})}
    model = tiny.adapt(trunk, tiny.example("adapters", "Frozen"), specs, tiny.example("heads", name)).eval()
    out = model(tiny.pictures(1, 97, 131))["seg"]
    assert out.shape == (1, 5, 97, 131) and out.isfinite().all()
