"""DPT's and UPerNet's decoder.

Truths: transformers' DPT (square powers of two), Depth Anything (odd grids) and UPerNet decoders on the same weights.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import garnish
import tiny
from garnish.engine.blocks import FeatureInfo
from garnish.errors import OptionError
from garnish.heads.dpt import DPTHead
from garnish.heads.uper import UPerHead
from test_heads import FEATURES, ODD_SIZES, WIDTHS, count, maps, randomise

CHANNELS = 8
REASSEMBLED = (4, 6, 8, 10)
#: 97×131 padded to multiples of 16, and of 14
ODD_GRIDS = {16: (7, 9), 14: (7, 10)}

DPT = DPTHead(channels=CHANNELS, widths=REASSEMBLED)
DPT_SEGMENTATION = DPTHead(channels=CHANNELS, widths=REASSEMBLED, output="segmentation", norm=True)
UPER = UPerHead(channels=CHANNELS)
every = pytest.mark.parametrize("spec", [DPT, DPT_SEGMENTATION, UPER], ids=["depth", "segmentation", "uper"])


def plain(stride: int = 16) -> list[FeatureInfo]:
    return [FeatureInfo(12, float(stride))] * 4


def tokens(height: int, width: int) -> list[torch.Tensor]:
    """(2, 1 + H·W, 12) a map: a class token first."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 1 + height * width, 12, generator=generator, dtype=torch.float64) for _ in range(4)]


def as_maps(given: list[torch.Tensor], height: int, width: int) -> list[torch.Tensor]:
    """Without class token; not contiguous, as trunks hand them out."""
    return [x[:, 1:].transpose(1, 2).unflatten(2, (height, width)) for x in given]


def renamed(ours: nn.Module, name: str) -> str:
    """Our name of a parameter of DPT's neck or head → transformers'."""
    first, rest = name.split(".", 1)
    last = len(ours.units) - 1
    if first == "output":
        return f"head.{rest}"
    number, leaf = rest.split(".", 1)
    if first == "entrances":
        return f"convs.{number}.{leaf}"
    if first == "reassemble":
        layer, leaf = leaf.split(".")
        return f"reassemble_stage.layers.{number}.{('projection', 'resize')[int(layer)]}.{leaf}"
    inner = {"laterals": "residual_layer1.", "units": "residual_layer2.", "projections": "projection."}[first]
    leaf = leaf.replace("conv", "convolution").replace("norm", "batch_norm")
    return f"fusion_stage.layers.{last - int(number)}.{inner}{leaf}"


def filled(ours: nn.Module, neck: nn.Module, head: dict[str, nn.Module]) -> None:
    """Copy transformers' weights into ours; nothing but the unit that never runs is left over."""
    theirs = dict(neck.state_dict())
    for name, module in head.items():
        theirs |= {f"head.{name}.{leaf}": tensor for leaf, tensor in module.state_dict().items()}
    taken = {name: theirs.pop(renamed(ours, name)) for name in ours.state_dict()}
    ours.load_state_dict(taken, strict=True)
    assert all(name.startswith("fusion_stage.layers.0.residual_layer1.") for name in theirs)


@torch.no_grad()
def lift(classifier: nn.Module) -> None:
    """Move the outputs above 0, where the published ReLU behind them does nothing."""
    classifier.bias.fill_(20.0)


def unused(neck: nn.Module) -> int:
    return count(neck.fusion_stage.layers[0].residual_layer1)


@pytest.mark.reference
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("output", ["depth", "segmentation"])
def test_dpt_equals_transformers(output, training):
    from transformers import DPTConfig
    from transformers.models.dpt.modeling_dpt import DPTDepthEstimationHead, DPTNeck, DPTSemanticSegmentationHead

    config = DPTConfig(
        hidden_size=12,
        neck_hidden_sizes=list(REASSEMBLED),
        fusion_hidden_size=CHANNELS,
        readout_type="ignore",
        num_labels=7,
        semantic_classifier_dropout=0.0,
        use_batch_norm_in_fusion_residual=output == "segmentation",
    )
    neck = DPTNeck(config).double().train(training)
    theirs = {"depth": DPTDepthEstimationHead, "segmentation": DPTSemanticSegmentationHead}[output](config)
    theirs.double().train(training)
    randomise(neck)
    randomise(theirs)
    if output == "depth":
        lift(theirs.head[4])
    names = {
        "depth": ("narrow", "", "hidden", "", "classifier"),
        "segmentation": ("hidden", "norm", "", "", "classifier"),
    }
    layers = {name: theirs.head[i] for i, name in enumerate(names[output]) if name}
    spec = DPTHead(channels=CHANNELS, widths=REASSEMBLED, output=output, norm=output == "segmentation", dropout=0.0)
    ours = spec.build(plain(), 1 if output == "depth" else 7).double().train(training)
    filled(ours, neck, layers)
    assert count(ours) == count(neck) + count(theirs) - unused(neck)
    given = tokens(4, 8)
    got = ours(as_maps(given, 4, 8))
    expected = theirs(neck(given, 4, 8))
    if output == "depth":
        assert got.shape == (2, 1, 64, 128)  # the picture's
        got = got.squeeze(1)
    else:
        assert got.shape == (2, 7, 32, 64)
        got = F.interpolate(got, scale_factor=2, mode="bilinear", align_corners=True)
    assert expected.std() > 0.01
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
    got.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(ours.entrances, neck.convs, strict=True):
        assert other.weight.grad.abs().max() > 0
        torch.testing.assert_close(one.weight.grad, other.weight.grad)


@pytest.mark.reference
@pytest.mark.parametrize("patch", [14, 16])
def test_dpt_on_odd_grids_equals_depth_anything(patch):
    from transformers import DepthAnythingConfig
    from transformers.models.depth_anything.modeling_depth_anything import (
        DepthAnythingDepthEstimationHead,
        DepthAnythingNeck,
    )

    config = DepthAnythingConfig(
        patch_size=patch,
        reassemble_hidden_size=12,
        neck_hidden_sizes=list(REASSEMBLED),
        fusion_hidden_size=CHANNELS,
        head_hidden_size=32,
    )
    neck, theirs = DepthAnythingNeck(config).double(), DepthAnythingDepthEstimationHead(config).double()
    randomise(neck)
    randomise(theirs)
    lift(theirs.conv3)
    ours = DPT.build(plain(patch), 1).double()
    filled(ours, neck, {"narrow": theirs.conv1, "hidden": theirs.conv2, "classifier": theirs.conv3})
    height, width = ODD_GRIDS[patch]
    given = tokens(height, width)
    got = ours(as_maps(given, height, width))
    expected = theirs(neck(given, height, width), height, width)
    assert got.shape == (2, 1, patch * height, patch * width) and expected.std() > 0.01
    torch.testing.assert_close(got.squeeze(1), expected, atol=1e-10, rtol=0)


@pytest.mark.reference
def test_dpt_on_a_pyramid_equals_transformers():
    from transformers import DPTConfig, Swinv2Config
    from transformers.models.dpt.modeling_dpt import DPTDepthEstimationHead, DPTNeck

    config = DPTConfig(
        backbone_config=Swinv2Config(), is_hybrid=False, neck_hidden_sizes=list(WIDTHS), fusion_hidden_size=CHANNELS
    )
    neck, theirs = DPTNeck(config).double(), DPTDepthEstimationHead(config).double()
    randomise(neck)
    randomise(theirs)
    lift(theirs.head[4])
    ours = DPT.build(FEATURES, 1).double()
    filled(ours, neck, {"narrow": theirs.head[0], "hidden": theirs.head[2], "classifier": theirs.head[4]})
    assert count(ours) == count(neck) + count(theirs) - unused(neck)
    given = [torch.randn(2, c, 24 // 2**i, 16 // 2**i, dtype=torch.float64) for i, c in enumerate(WIDTHS)]
    got, expected = ours(given), theirs(neck(given))
    assert got.shape == (2, 1, 96, 64) and expected.std() > 0.01
    torch.testing.assert_close(got.squeeze(1), expected, atol=1e-10, rtol=0)


@pytest.mark.reference
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scales", [(1, 2, 3, 6), (1, 4)])
def test_uper_head_equals_transformers(scales, training):
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetHead

    config = UperNetConfig(hidden_size=CHANNELS, pool_scales=list(scales), num_labels=7)
    theirs = UperNetHead(config, list(WIDTHS)).double().train(training)
    randomise(theirs)
    ours = UPerHead(channels=CHANNELS, pool_scales=scales, dropout=0.0).build(FEATURES, 7).double().train(training)
    own = {"psp_modules": "pooled", "bottleneck": "pyramid", "lateral_convs": "laterals", "fpn_convs": "smooth"}
    own |= {"fpn_bottleneck": "fuse", "classifier": "classifier"}
    taken = {}
    for name, tensor in theirs.state_dict().items():
        first, rest = name.split(".", 1)
        if first == "psp_modules":  # block, then pooling (0) or unit (1)
            number, _, rest = rest.split(".", 2)
            rest = f"{number}.{rest}"
        taken[f"{own[first]}.{rest}".replace("batch_norm", "norm")] = tensor.clone()
    ours.load_state_dict(taken, strict=True)
    assert count(ours) == count(theirs)
    got, expected = ours(maps(torch.float64)), theirs(maps(torch.float64))
    assert got.shape == (2, 7, *ODD_SIZES[0]) and expected.std() > 0.01
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours.fuse.norm.running_var, theirs.fpn_bottleneck.batch_norm.running_var)
    got.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.pooled[0].conv.weight.grad, theirs.psp_modules.blocks[0].layers[1].conv.weight.grad)


def test_counts_at_the_defaults():
    """By hand, from the papers' widths: Swin-T for UPerNet, ViT-B for DPT."""
    swin = [FeatureInfo(96 * 2**i, 4.0 * 2**i) for i in range(4)]
    norm = 2 * 512
    pooled = 4 * (768 * 512 + norm)
    joined = (768 + 4 * 512) * 512 * 9 + norm
    laterals = (96 + 192 + 384) * 512 + 3 * norm
    smooth = 3 * (512 * 512 * 9 + norm)
    fuse = 4 * 512 * 512 * 9 + norm
    with torch.device("meta"):
        assert count(UPerHead().build(swin, 21)) == pooled + joined + laterals + smooth + fuse + 512 * 21 + 21
        dpt = DPTHead().build([FeatureInfo(768, 16.0)] * 4, 1)
    widths = (96, 192, 384, 768)
    reassemble = sum(769 * w for w in widths) + (96 * 96 * 16 + 96) + (192 * 192 * 4 + 192) + (768 * 768 * 9 + 768)
    unit = 2 * (256 * 256 * 9 + 256)
    fusion = sum(w * 256 * 9 for w in widths) + 7 * unit + 4 * 257 * 256
    output = 256 * 128 * 9 + 128 + 128 * 32 * 9 + 32 + 33
    assert count(dpt) == reassemble + fusion + output


def test_dpt_reads_merged_maps():
    """Two maps of Swin behind patch merging have one stride."""
    features = [FeatureInfo(4, s) for s in (8.0, 16.0, 32.0, 32.0)]
    given = [torch.randn(1, 4, *size) for size in ((13, 17), (7, 9), (4, 5), (4, 5))]
    assert DPT.build(features, 3)(given).shape == (1, 3, 8 * 13, 8 * 17)


@every
def test_one_picture_can_be_trained_on(spec):
    head = spec.build(FEATURES, 5).train()
    head([x[:1] for x in maps()]).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@every
def test_freezing_changes_no_output(spec):
    features = plain(14) if isinstance(spec, DPTHead) else FEATURES
    given = [x.float() for x in as_maps(tokens(7, 9), 7, 9)] if isinstance(spec, DPTHead) else maps()
    given = [x.to(memory_format=torch.channels_last) for x in given]
    head = spec.build(features, 5).eval()
    trained = head(given).detach()
    assert torch.equal(head.requires_grad_(False)(given), trained)


@pytest.mark.parametrize("short", ["dinov2", "swin"])
def test_dpt_reads_maps_as_they_are(short):
    """The model hands a plain trunk's maps over unresampled, and crops at the picture's own size."""
    model = tiny.adapt(
        tiny.backbone(short), tiny.example("adapters", "Frozen"), {"seg": garnish.Semantic(classes=5)}, DPT
    )
    seen: list[list[torch.Size]] = []
    model.head("seg").register_forward_pre_hook(lambda _, args: seen.append([x.shape[-2:] for x in args[0]]))
    assert model.eval()(tiny.pictures(1, 97, 131))["seg"].shape == (1, 5, 97, 131)
    strides = [f.stride for f in model.backbone.features]
    multiple = model.backbone.multiple
    height, width = 97 + -97 % multiple, 131 + -131 % multiple
    assert seen == [[(round(height / s), round(width / s)) for s in strides]]


@pytest.mark.compile
@pytest.mark.export
def test_dpt_compiles_and_exports_on_plain_maps():
    head = DPT.build(plain(14), 5).eval()
    given = [x.float() for x in as_maps(tokens(7, 9), 7, 9)]
    torch._dynamo.reset()
    with torch.no_grad():
        expected = head(given)
        torch.testing.assert_close(torch.compile(head, backend="eager", fullgraph=True)(given), expected)
        torch.testing.assert_close(torch.export.export(head, (given,)).module()(given), expected)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DPTHead(channels=1), "DPTHead.channels: expected a whole number from 2 to 4,096, got int 1"),
        (
            lambda: DPTHead(widths=(4, 4, 4)),
            r"DPTHead.widths: expected a list of a whole number from 1 to 4,096, 4 of them, got tuple \(4, 4, 4\)",
        ),
        (lambda: DPTHead(output="normals"), "DPTHead.output: expected one of depth, segmentation; got 'normals'"),
        (lambda: DPTHead(dropout=1.0), "DPTHead.dropout: expected a number from 0 to below 1, got float 1.0"),
        (lambda: DPT.build([], 3), "needs features"),
        (lambda: DPT.build(plain()[:3], 3), r"needs 4 maps of one stride .* got strides \[16.0, 16.0, 16.0\]"),
        (lambda: UPerHead(channels=0), "UPerHead.channels: expected a whole number from 1 to 4,096, got int 0"),
        (
            lambda: UPerHead(pool_scales=()),
            "UPerHead.pool_scales: .* from 1 to 256, 1 to 64 of them, got an empty tuple",
        ),
        (
            lambda: UPerHead(pool_scales=(1, 0)),
            "UPerHead.pool_scales: expected a whole number from 1 to 256, got int 0",
        ),
        (lambda: UPerHead(dropout=-0.1), "UPerHead.dropout: expected a number from 0 to below 1, got float -0.1"),
        (lambda: UPER.build(FEATURES, 0), "needs features and outputs"),
    ],
)
def test_options_are_checked(make, match):
    with pytest.raises(OptionError, match=match):
        make()
