"""What every backbone family must do; timm's own models are the truth for those built from its modules."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

import garnish
import tiny
from garnish import registry
from garnish.backbones.timm_models import TimmTrunk
from garnish.engine.blocks import Residual
from garnish.engine.sites import OffStream
from garnish.errors import OptionError

every = pytest.mark.parametrize("short", list(tiny.BACKBONES))
#: families built from timm's modules: timm's names lead to the same tensors
FROM_TIMM = tuple(
    short for short, (cls, _, _) in tiny.BACKBONES.items() if issubclass(registry.find("backbones", cls), TimmTrunk)
)
#: two sizes a trunk: that of its weights, and one that is not square. Windows divide every map of both: elsewhere timm
#: lets opposite borders attend to each other, and tests/test_swin_borders.py compares with transformers
SIZES = {
    "vit": ((64, 64), (96, 144)),
    "dinov2": ((56, 56), (98, 140)),
    "dinov3": ((64, 64), (96, 144)),
    "swin": ((224, 224), (224, 448)),
    "swinv2": ((256, 256), (256, 512)),
}
#: of trunks without positions or windows
OTHER_SIZES = ((64, 64), (96, 160))


def garnish_families() -> set[str]:
    """Families that lie in the package: of others nothing is known beforehand."""
    return {n for n, cls in registry.classes("backbones").items() if cls.__module__.startswith("garnish.")}


def test_every_family_has_a_tiny_member():
    families = registry.classes("backbones")
    missing = [name for name, cls in families.items() if not getattr(cls, "small", {})]
    assert not missing, f"{', '.join(missing)}: name a small trunk in `small` (see Backbone)"
    assert sum(len(cls.small) for cls in families.values()) == len(tiny.BACKBONES), "two trunks of one label"
    for short, (family, name, _) in tiny.BACKBONES.items():
        assert type(tiny.backbone(short)).__name__ == family
        assert name in registry.find("backbones", family).names()


def test_names_belong_to_one_family():
    names = [n for cls in registry.classes("backbones").values() for n in cls.names()]
    assert len(names) == len(set(names))
    with pytest.raises(OptionError, match="vit_small_patch14_dinov2") as caught:
        garnish.backbone("vit_small_patch14_dinov")
    assert "\n" not in str(caught.value)


@every
def test_unknown_options_are_refused_in_one_line(short):
    _, name, options = tiny.BACKBONES[short]
    with pytest.raises(OptionError, match="embed_dimm") as caught:
        garnish.backbone(name, options={**options, "embed_dimm": 3})
    assert "\n" not in str(caught.value)


@every
def test_is_frozen_and_quiet(short):
    trunk = tiny.backbone(short)
    assert not any(p.requires_grad for p in trunk.parameters())
    assert not any(m.training for m in trunk.modules())
    x = torch.randn(2, 3, 2 * trunk.multiple, 3 * trunk.multiple)
    assert all(torch.equal(a, b) for a, b in zip(trunk(x), trunk(x), strict=True))


@every
@pytest.mark.parametrize("size", [(2, 2), (3, 5)])
def test_features_are_what_is_stated(short, size):
    trunk = tiny.backbone(short)
    height, width = (s * trunk.multiple for s in size)
    maps = trunk(torch.randn(2, 3, height, width))
    assert len(maps) == len(trunk.features)
    for x, info in zip(maps, trunk.features, strict=True):
        assert x.shape == (2, info.channels, height / info.stride, width / info.stride)
        assert x.dtype == torch.float32 and x.isfinite().all()
        # the last one is not yet flat, nor alike for both pictures
        assert tiny.far(x[:1], x[1:]) > 1e-2
        assert x.std(dim=(2, 3)).mean() > 1e-3


@every
def test_pictures_do_not_see_each_other(short):
    trunk = tiny.backbone(short).double()
    x = torch.randn(3, 3, 2 * trunk.multiple, 3 * trunk.multiple, dtype=torch.float64)
    for got, want in zip(trunk(x), zip(*[trunk(x[i : i + 1]) for i in range(3)], strict=True), strict=True):
        assert tiny.far(got, torch.cat(want)) < 1e-12


@every
def test_sites_are_named_once_in_forward_order_and_stay(short):
    trunk = tiny.backbone(short)
    sites = trunk.sites()
    names = [s.name for s in sites]
    assert len(set(names)) == len(names)
    assert [s.unit for s in sites] == sorted(s.unit for s in sites)
    # a block that is run whole (a CNN's) has layers, norms and nothing else
    residuals = any(isinstance(unit.module, Residual) for unit in trunk.units)
    in_blocks = {"sublayer", "branch", "beside", "residual"} if residuals else set()
    assert residuals == (short != "cnn") or tiny.BACKBONES[short][0] not in garnish_families()
    assert {"layer", "norm", "feature"} | in_blocks == {s.kind for s in sites}
    tensors = list(trunk.frozen_tensors())
    names_of_methods = ("LoRA", "Houlsby", "AdaptFormer") if in_blocks else ("LoRA",)
    every_kind = [registry.build("adapters", n, {}) for n in names_of_methods]
    model = garnish.adapt(trunk, every_kind, {"seg": registry.build("tasks", "Semantic", {"classes": 2})})
    assert [s.name for s in model.backbone.sites()] == names
    assert list(model.backbone.frozen_tensors()) == tensors


@every
def test_each_linear_layer_and_convolution_is_a_site(short):
    trunk = tiny.backbone(short)
    # but those that read constants: SwinV2's tables of positions are made by an MLP
    constant = {id(m) for off in trunk.modules() if isinstance(off, OffStream) for m in off.modules() if m is not off}
    assert len(constant) == (3 * 8 if short == "swinv2" else 0) or tiny.BACKBONES[short][0] not in garnish_families()
    layers = {id(m) for m in trunk.modules() if isinstance(m, nn.Linear | nn.Conv2d)} - constant
    assert {id(m) for s, m in trunk.sites_with_modules() if s.kind == "layer"} == layers


@every
def test_each_tensor_has_a_name_and_a_source(short):
    trunk = tiny.backbone(short)
    frozen = trunk.frozen_tensors()
    assert {id(p) for p in trunk.parameters()} <= {id(t) for t in frozen.values()}
    assert set(trunk.source_names) == set(frozen)
    if short in FROM_TIMM:
        _, name, options = tiny.BACKBONES[short]
        theirs = timm.create_model(name, num_classes=0, **options).state_dict()
        assert all(theirs[source].shape == frozen[ours].shape for ours, source in trunk.source_names.items())


@every
def test_fingerprint_is_of_the_content(short):
    trunk, same, other = tiny.backbone(short), tiny.backbone(short), tiny.backbone(short, seed=1)
    assert trunk.fingerprint() == same.fingerprint() != other.fingerprint()
    with torch.no_grad():
        last = next(t for t in reversed(same.frozen_tensors().values()) if isinstance(t, nn.Parameter))
        last.view(-1)[-1] += 1e-6 * last.view(-1)[-1].abs() + 1e-6
    assert trunk.fingerprint() != same.fingerprint()


@every
def test_deep_copy_is_independent(short):
    trunk = tiny.backbone(short)
    x = torch.randn(1, 3, 2 * trunk.multiple, 2 * trunk.multiple)
    before, copied = trunk(x), copy.deepcopy(trunk)
    assert all(torch.equal(a, b) for a, b in zip(copied(x), before, strict=True))
    with torch.no_grad():
        for tensor in copied.frozen_tensors().values():
            tensor.mul_(2)
    assert all(torch.equal(a, b) for a, b in zip(trunk(x), before, strict=True))
    assert not torch.equal(copied(x)[-1], before[-1])


def timm_twin(short: str, size: tuple[int, int]) -> nn.Module:
    """Timm's own model for pictures of exactly this size, with the trunk's weights."""
    _, name, options = tiny.BACKBONES[short]
    if short in ("swin", "swinv2"):
        made = timm.create_model(name, num_classes=0, img_size=size, **options)
    elif short in SIZES:
        made = timm.create_model(name, num_classes=0, dynamic_img_size=True, **options)
    else:
        made = timm.create_model(name, num_classes=0, **options)
    trunk = tiny.backbone(short)
    state = {trunk.source_names[n]: t for n, t in trunk.frozen_tensors().items()}
    unknown = made.load_state_dict(state, strict=False)
    assert not unknown.unexpected_keys
    # what a dense trunk leaves out: the norm behind the last block
    assert {n.split(".")[0] for n in unknown.missing_keys} <= {"norm", "fc_norm", "head", "conv_head", "bn2"}
    return made.eval()


@pytest.mark.reference
@pytest.mark.parametrize("short", FROM_TIMM)
@pytest.mark.parametrize("which", [0, 1], ids=["own_size", "other_size"])
def test_equals_timm(short, which):
    trunk = tiny.backbone(short)
    size = SIZES.get(short, OTHER_SIZES)[which]
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        theirs = timm_twin(short, size).forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")
        ours = trunk(x)
    theirs = theirs[1:] if short == "cnn" else theirs  # a CNN's map of stride 2 is not read
    assert len(theirs) == len(ours)
    for got, want in zip(ours, theirs, strict=True):
        assert tiny.far(got, want) < 1e-5


@pytest.mark.reference
@pytest.mark.parametrize("size", [(32, 256), (256, 32)])
def test_a_side_of_one_window_is_not_shifted_though_the_other_is(size):
    """The first map of SwinV2, whose windows of 8 divide both sides; further maps are smaller than timm's windows."""
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        theirs = timm_twin("swinv2", size).forward_intermediates(x, [0], intermediates_only=True, output_fmt="NCHW")
        assert tiny.far(tiny.backbone("swinv2")(x)[0], theirs[0]) < 1e-5
