"""The linear, the all-MLP and the HRNet-type head.

Truths: the formulas in float64; transformers' decode head on the same weights; published parameter counts.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from garnish.backbones.mit import MiT
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.dpt import DPTHead
from garnish.heads.head import pyramid_info, resample_pyramid
from garnish.heads.hrnet import HRNetHead
from garnish.heads.linear import LinearHead
from garnish.heads.segformer import SegFormerHead
from garnish.heads.uper import UPerHead

WIDTHS = (8, 16, 24, 32)
FEATURES = [FeatureInfo(c, s) for c, s in zip(WIDTHS, (4, 8, 16, 32), strict=True)]
#: maps of a 97×131 picture, as ceil(side / stride)
ODD_SIZES = [(25, 33), (13, 17), (7, 9), (4, 5)]

#: every head that a task has for itself
SINGLE = [
    LinearHead(),
    SegFormerHead(channels=16, norm=True),
    HRNetHead(),
    DPTHead(channels=8, widths=(4, 6, 8, 10)),
    DPTHead(channels=8, widths=(4, 6, 8, 10), output="segmentation", norm=True),
    UPerHead(channels=8),
]


def maps(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *s, generator=generator, dtype=dtype) for c, s in zip(WIDTHS, ODD_SIZES, strict=True)]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 4
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan_in**0.5)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_var.abs_().add_(0.5)


#: transformers' names → ours
DECODE_HEAD = {
    **{f"linear_projections.{i}.proj": f"projections.{i}" for i in range(4)},
    "linear_fuse": "fuse",
    "batch_norm": "norm",
    "classifier": "classifier",
}


@pytest.mark.reference
@pytest.mark.parametrize("training", [False, True])
def test_segformer_head_equals_transformers(training):
    from transformers import SegformerConfig
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    theirs = SegformerDecodeHead(
        SegformerConfig(hidden_sizes=WIDTHS, decoder_hidden_size=20, num_labels=7, classifier_dropout_prob=0.0)
    ).train(training)
    randomise(theirs)
    ours = SegFormerHead(channels=20, dropout=0.0).build(FEATURES, 7).train(training)
    renamed = {}
    for name, tensor in theirs.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        renamed[f"{DECODE_HEAD[layer]}.{leaf}"] = tensor.clone()
    ours.load_state_dict(renamed, strict=True)
    expected = theirs(maps())
    got = ours(maps())
    assert got.shape == (2, 7, 25, 33) and expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.norm.running_var, theirs.batch_norm.running_var)
    got.square().sum().backward()
    expected.square().sum().backward()
    scale = theirs.linear_fuse.weight.grad.abs().max()
    torch.testing.assert_close(ours.fuse.weight.grad / scale, theirs.linear_fuse.weight.grad / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "channels", "published_m"),
    [
        ("mit_b0", 256, 3.75),
        ("mit_b1", 256, 13.72),
        ("mit_b2", 768, 27.46),
        ("mit_b3", 768, 47.34),
        ("mit_b4", 768, 64.11),
        ("mit_b5", 768, 84.71),
    ],
)
def test_segformer_sizes(name, channels, published_m):
    with torch.device("meta"):
        backbone = MiT.create(name, None, {})
        head = SegFormerHead(channels=channels).build(backbone.features, 150)
    assert round((count(backbone) + count(head)) / 1e6, 2) == published_m


@pytest.mark.parametrize("taps", ["all", "last"])
def test_linear_head_is_one_convolution_of_the_joined_maps(taps):
    head = LinearHead(taps=taps).build(FEATURES, 5).double()
    randomise(head)
    used = maps(torch.float64)[0 if taps == "all" else 3 :]
    joined = []
    for x, norm in zip(used, head.norms, strict=True):
        mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        x = (x - mean) / (var + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        joined.append(F.interpolate(x, (25, 33), mode="bilinear", align_corners=False))
    weight = torch.cat([p.weight for p in head.projections], dim=1)
    expected = F.conv2d(torch.cat(joined, 1), weight, head.projections[0].bias)
    got = head(maps(torch.float64))
    assert got.shape == (2, 5, 25, 33) and expected.std() > 0.1
    torch.testing.assert_close(got, expected)
    assert count(head) == sum(2 * x.shape[1] + 5 * x.shape[1] for x in used) + 5


def test_segformer_norms_stand_in_front():
    plain, normed = (SegFormerHead(channels=6, norm=n).build(FEATURES, 5).double().eval() for n in (False, True))
    randomise(normed)
    own = {k: v for k, v in normed.state_dict().items() if not k.startswith("input_norms")}
    plain.load_state_dict(own, strict=True)
    given = []
    for x, norm in zip(maps(torch.float64), normed.input_norms, strict=True):
        mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        given.append((x - mean) / (var + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None])
    torch.testing.assert_close(normed(maps(torch.float64)), plain(given))
    assert (plain(given) - plain(maps(torch.float64))).abs().max() > 1e-2
    assert count(normed) - count(plain) == 2 * sum(WIDTHS)


@pytest.mark.parametrize("training", [False, True])
def test_hrnet_head_is_its_formula(training):
    head = HRNetHead(widths=(3, 4, 5, 6)).build(FEATURES, 5).double().train(training)
    randomise(head)
    mean, var = head.norm.running_mean.clone(), head.norm.running_var.clone()
    got = head(maps(torch.float64))
    joined = []
    for x, layer in zip(maps(torch.float64), head.projections, strict=True):
        x = torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x)
        joined.append(F.interpolate(x, (25, 33), mode="bilinear", align_corners=False))
    x = torch.einsum("oc,bchw->bohw", head.fuse.weight[:, :, 0, 0], torch.cat(joined, 1))
    x = x + head.fuse.bias[:, None, None]
    assert x.shape[1] == 4 * 18
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    x = F.relu(x * head.norm.weight[:, None, None] + head.norm.bias[:, None, None])
    expected = torch.einsum("oc,bchw->bohw", head.classifier.weight[:, :, 0, 0], x)
    torch.testing.assert_close(got, expected + head.classifier.bias[:, None, None])
    assert got.shape == (2, 5, 25, 33) and got.std() > 0.1


def test_plain_vit_features():
    plain = [FeatureInfo(12, 14)] * 4
    tokens = [torch.randn(1, 12, 5, 7) for _ in range(4)]
    assert not LinearHead().pyramid
    assert LinearHead().build(plain, 3)(tokens).shape == (1, 3, 5, 7)
    assert SegFormerHead().pyramid
    head = SegFormerHead(channels=16).build(pyramid_info(plain), 3)
    assert head(resample_pyramid(tokens)).shape == (1, 3, 20, 28)


@pytest.mark.parametrize("spec", [LinearHead(), LinearHead(taps="last"), SegFormerHead(channels=16, norm=True)])
def test_every_parameter_gets_a_gradient(spec):
    head = spec.build(FEATURES, 5).train()
    head(maps()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


@pytest.mark.compile
@pytest.mark.parametrize("spec", SINGLE, ids=repr)
def test_compiles_to_one_graph(spec):
    head = spec.build(FEATURES, 5).eval()
    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(head, backend="eager", fullgraph=True)(maps())
        torch.testing.assert_close(got, head(maps()))


@pytest.mark.export
@pytest.mark.parametrize("spec", SINGLE, ids=repr)
def test_exports(spec):
    head = spec.build(FEATURES, 5).eval()
    exported = torch.export.export(head, (maps(),))
    torch.testing.assert_close(exported.module()(maps()), head(maps()))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LinearHead(taps="first"), "LinearHead.taps: expected one of all, last; got 'first'"),
        (
            lambda: SegFormerHead(channels=0),
            "SegFormerHead.channels: expected a whole number from 1 to 4,096, got int 0",
        ),
        (
            lambda: SegFormerHead(dropout=1.0),
            "SegFormerHead.dropout: expected a number from 0 to below 1, got float 1.0",
        ),
        (lambda: SegFormerHead().build([], 3), "needs features"),
        (lambda: HRNetHead().build([], 3), "needs features"),
        (lambda: HRNetHead().build(FEATURES[:3], 3), "HRNetHead.widths: 4 widths for 3 feature maps; give 3"),
        (
            lambda: HRNetHead(widths=(4, 0, 4, 4)),
            "HRNetHead.widths: expected a whole number from 1 to 4,096, got int 0",
        ),
        (lambda: LinearHead().build(FEATURES, 0), "needs features and outputs"),
    ],
)
def test_options_are_checked(make, match):
    with pytest.raises(OptionError, match=match):
        make()
