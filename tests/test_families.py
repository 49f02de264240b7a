"""SwinV2, ConvNeXt and timm's CNNs beyond what the conformance suite asks of every family."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import garnish
import tiny
from garnish import registry
from garnish.backbones import cnn, cnn_names, swin_v2
from garnish.backbones.swin_v2 import CosineAttention
from garnish.backbones.windows import ShiftedWindows
from garnish.errors import SiteError, WeightsError

TRACER = Path(__file__).parents[1].parent / "shared" / "weights" / "efficientnet_b0_tracer" / "model.safetensors"


def twin_of(trunk, **options) -> nn.Module:
    """Timm's own model with the trunk's weights."""
    made = timm.create_model(trunk.name, num_classes=0, **{**trunk.options, **options})
    state = {trunk.source_names[n]: t for n, t in trunk.frozen_tensors().items()}
    assert not made.load_state_dict(state, strict=False).unexpected_keys
    return made.eval()


def random_trunk(name: str, options: dict | None = None):
    trunk = garnish.backbone(name, options=options)
    tiny.randomise_trunk(trunk)
    return trunk


# ---- SwinV2 ---------------------------------------------------------------------------------------------------------

SWIN = {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4]}


@pytest.mark.reference
@pytest.mark.parametrize(("name", "last"), [("swinv2_tiny_window16_256", 8), ("swinv2_base_window12to16_192to256", 8)])
def test_windows_that_timm_shrinks_for_the_last_map(name, last):
    trunk = random_trunk(name, SWIN)
    assert trunk.stages[0].blocks[0]["attn"].branch.layer.size == (16, 16)
    assert trunk.stages[3].blocks[1]["attn"].branch.layer.size == (last, last)
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        theirs = twin_of(trunk).forward_intermediates(x, intermediates_only=True)
        for got, want in zip(trunk(x), theirs, strict=True):
            assert tiny.far(got, want) < 1e-5


@pytest.mark.reference
def test_windows_hide_as_softly_as_timms_where_attention_is_sharp():
    """Queries are their keys' opposites on a map of two opposite halves: what is hidden is what is looked for."""
    block = (
        timm.create_model("swinv2_tiny_window8_256", img_size=64, window_size=4, **SWIN).layers[1].blocks[1].double()
    )
    with torch.no_grad():
        width = block.attn.qkv.in_features
        block.attn.qkv.weight[:width].copy_(-block.attn.qkv.weight[width : 2 * width])
        block.attn.q_bias.zero_()
        block.attn.logit_scale.fill_(math.log(100))
        x = torch.randn(width, dtype=torch.float64) + 0.1 * torch.randn(1, 8, 8, width, dtype=torch.float64)
        x[:, 4:] *= -1
        assert tiny.far(swin_v2._windows(block)(x), block.eval()._attn(x)) < 1e-9


@pytest.mark.parametrize("size", [(5, 11), (8, 8), (3, 9), (4, 4)])
@pytest.mark.parametrize("shift", [0, 2])
def test_shifted_cosine_windows_token_by_token(size, shift):
    """Every token by itself, from the paper: which tokens it sees, their cosines, the bias of their distance."""
    block = timm.create_model("swinv2_tiny_window8_256", img_size=64, window_size=4, **SWIN).layers[1].blocks[0]
    attn, heads, width = block.attn.double(), 2, 48
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in attn.parameters():
            parameter.add_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    layer = ShiftedWindows(CosineAttention(attn), (4, 4), (shift, shift), -1000.0)
    high, wide = size
    x = torch.randn(2, high, wide, width, dtype=torch.float64)
    shifts = [shift if side > 4 else 0 for side in size]
    padded = [-(-side // 4) * 4 for side in size]

    def source(at: int, side: int, padded: int, shift: int) -> tuple[int | None, int]:
        """Where a place of the padded and rolled side came from (None: padding), and whether it was rolled in."""
        came = (at + shift) % padded
        return (came if came < side else None), int(came < shift)

    with torch.no_grad():
        got = layer(x)
        bias = torch.cat([attn.q_bias, torch.zeros(width), attn.v_bias])
        qkv = F.linear(x, attn.qkv.weight, bias).unflatten(-1, (3, heads, -1))
        of_padding = bias.unflatten(0, (3, heads, -1))

        def table(dy: int, dx: int) -> torch.Tensor:
            apart = torch.tensor([dy, dx], dtype=torch.float64) * 8 / 3
            log = apart.sign() * torch.log2(1 + apart.abs()) / 3
            return 16 * torch.sigmoid(attn.cpb_mlp(log))

        inner = torch.zeros_like(x)
        for y0 in range(padded[0]):
            for x0 in range(padded[1]):
                (ys, yp), (xs, xp) = source(y0, high, padded[0], shifts[0]), source(x0, wide, padded[1], shifts[1])
                if ys is None or xs is None:
                    continue
                logits, values = [], []
                q = F.normalize(qkv[:, ys, xs, 0], dim=-1)
                for y1 in range(y0 // 4 * 4, y0 // 4 * 4 + 4):
                    for x1 in range(x0 // 4 * 4, x0 // 4 * 4 + 4):
                        (yt, yq) = source(y1, high, padded[0], shifts[0])
                        (xt, xq) = source(x1, wide, padded[1], shifts[1])
                        if (yp, xp) != (yq, xq):
                            continue
                        seen = of_padding.expand(2, -1, -1, -1) if yt is None or xt is None else qkv[:, yt, xt]
                        cosine = (q * F.normalize(seen[:, 1], dim=-1)).sum(-1)
                        warm = attn.logit_scale.flatten().clamp(max=torch.tensor(100.0).log()).exp()
                        logits.append(cosine * warm + table(y0 - y1, x0 - x1))
                        values.append(seen[:, 2])
                weights = torch.stack(logits).softmax(0)
                inner[:, ys, xs] = (weights[..., None] * torch.stack(values)).sum(0).flatten(1)
        assert tiny.far(got, F.linear(inner, attn.proj.weight, attn.proj.bias)) < 1e-6


def test_the_position_mlp_takes_no_adapter():
    trunk = tiny.backbone("swinv2")
    assert "stages.0.blocks.0.attn.cpb_mlp.0.weight" in trunk.frozen_tensors()
    with pytest.raises(SiteError, match="no layer 'cpb_mlp"):
        garnish.LoRA(layers=("cpb_mlp.0",)).plan(trunk)


def test_the_norm_comes_last():
    trunk = tiny.backbone("swinv2")
    branch = trunk.stages[0].blocks[0]["mlp"].branch
    seen = []
    branch.beside.register_forward_hook(lambda module, given, out: seen.append(given))
    x = torch.randn(1, 8, 8, 24)
    out = branch(x)
    assert seen[0][0] is x
    torch.testing.assert_close(out, branch.norm(branch.layer(x)))


# ---- ConvNeXt -------------------------------------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "convnext_tiny.dinov3_lvd1689m",
        "convnext_atto",  # channels-first MLPs
        "convnext_atto_ols",  # two convolutions in the stem
        "convnext_zepto_rms",
        "convnext_tiny_hnf",
        "convnext_xxlarge",
        "convnextv2_atto",
    ],
)
def test_convnext_equals_timm(name):
    trunk = random_trunk(name, {"dims": [16, 24, 32, 48], "depths": [2, 1, 2, 1]})
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        theirs = twin_of(trunk).forward_intermediates(x, intermediates_only=True)
        for got, want in zip(trunk(x), theirs, strict=True):
            assert tiny.far(got, want) < 1e-5


@pytest.mark.reference
@pytest.mark.parametrize(("stride", "strides"), [(8, [4, 8, 8, 8]), (16, [4, 8, 16, 16])])
def test_dilated_convnext_equals_timm(stride, strides):
    options = {"dims": [16, 24, 32, 48], "depths": [2, 1, 2, 1], "output_stride": stride}
    trunk = random_trunk("convnext_tiny", options)
    assert [f.stride for f in trunk.features] == strides and trunk.multiple == stride
    assert [s.role for s in trunk.sites() if s.place == "enter" and s.kind == "layer"] == ["conv"] * 3
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        theirs = twin_of(trunk).forward_intermediates(x, intermediates_only=True)
        for got, want in zip(trunk(x), theirs, strict=True):
            assert tiny.far(got, want) < 1e-5


def test_convnext_adapters_see_channels_last():
    trunk = random_trunk("convnext_atto", {"dims": [16, 24, 32, 48], "depths": [1, 1, 1, 1]})
    shapes = {}
    for site, module in trunk.sites_with_modules():
        if site.stage == 1 and site.block == 0:
            module.register_forward_hook(lambda m, given, out, name=site: shapes.update({name: out.shape}))
    trunk(torch.randn(1, 3, 64, 96))
    assert {s.kind for s in shapes} >= {"norm", "sublayer", "beside", "branch", "residual", "layer"}
    for site, shape in shapes.items():
        channels = 96 if site.role == "fc1" else 24
        assert shape == ((1, channels, 8, 12) if site.kind == "layer" else (1, 8, 12, channels)), site


def test_weights_of_another_family_are_refused_in_one_line(tmp_path):
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(6, 2)}, tmp_path / "other.safetensors")
    for short in ("swinv2", "convnext", "cnn"):
        _, name, options = tiny.BACKBONES[short]
        with pytest.raises(WeightsError) as caught:
            garnish.backbone(name, str(tmp_path / "other.safetensors"), options=options)
        assert "\n" not in str(caught.value)


# ---- timm's CNNs ----------------------------------------------------------------------------------------------------


def equals_features_only(name: str, options: dict | None = None) -> None:
    trunk = random_trunk(name, options)
    theirs = timm.create_model(name, features_only=True, **(options or {})).eval()
    names = cnn_names.CNNNames(name, options or {})
    by_source = {source: trunk.frozen_tensors()[ours] for ours, source in trunk.source_names.items()}
    theirs.load_state_dict({k: by_source[names.of(k)] for k in theirs.state_dict()})
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        ours, wanted = trunk(x), theirs(x)
    kept = [m for m, s in zip(wanted, theirs.feature_info.reduction(), strict=True) if s >= 4 or options]
    assert [m.shape for m in ours] == [(2, f.channels, 64 / f.stride, 96 / f.stride) for f in trunk.features]
    assert len(ours) == len(kept)
    for got, want in zip(ours, kept, strict=True):
        assert tiny.far(got, want) < 1e-5
    assert all(stage.blocks for stage in trunk.stages)
    layers = [m for m in trunk.modules() if type(m) in (nn.Conv2d, nn.Linear)]
    assert {id(m) for m in layers} <= {id(m) for s, m in trunk.sites_with_modules() if s.kind == "layer"}


@pytest.mark.reference
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050", "regnetx_002"])
def test_cnn_equals_features_only(name):
    equals_features_only(name)


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("module", cnn._MODULES)
def test_each_module_of_timms_equals_features_only(module):
    with torch.device("meta"):
        sizes = {n: sum(p.numel() for p in timm.create_model(n).parameters()) for n in timm.list_models(module=module)}
    equals_features_only(min(sizes, key=sizes.__getitem__))


@pytest.mark.reference
def test_levels_can_be_chosen():
    equals_features_only("resnet18", {"out_indices": [0, 2, 3]})
    assert [f.stride for f in garnish.backbone("resnet18", options={"out_indices": [1, 2]}).features] == [4, 8]
    assert garnish.backbone("resnet18", options={"out_indices": [1, 2]}).multiple == 8


def test_batch_norms_keep_their_statistics_where_the_trunk_is_trained():
    model = tiny.model("cnn", registry.build("adapters", "FullFineTuning"))
    before = {n: t.clone() for n, t in model.backbone.frozen_tensors().items()}
    model.train()
    inside = list(model.owners[0].body(model.backbone.body).modules())  # who tunes anything has modules of its own
    norms = [m for m in inside if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and not any(m.training for m in norms)
    assert any(m.training for m in inside if isinstance(m, nn.Dropout | nn.SiLU | nn.ReLU))
    assert not any(m.training for m in model.backbone.stem.modules())
    tiny.one_loss(model(tiny.pictures())).backward()
    assert all(torch.equal(before[n], t) for n, t in model.backbone.frozen_tensors().items())


def test_a_whole_classifier_s_checkpoint_is_read(tmp_path):
    whole = timm.create_model("test_efficientnet", num_classes=7)
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in whole.state_dict().items()}
    save_file(state, tmp_path / "whole.safetensors")
    trunk = garnish.backbone("test_efficientnet", str(tmp_path / "whole.safetensors"))
    tensors = trunk.frozen_tensors()
    assert len(tensors) > 50 and all(torch.equal(state[s], tensors[n]) for n, s in trunk.source_names.items())
    save_file({k: v for k, v in state.items() if k != "blocks.1.0.conv_exp.weight"}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match=r"lack blocks_1\.0\.conv_exp\.weight"):
        garnish.backbone("test_efficientnet", str(tmp_path / "part.safetensors"))


@pytest.mark.real
@pytest.mark.skipif(not TRACER.exists(), reason="../shared with its weights is missing")
def test_real_efficientnet_gives_timms_features():
    trunk = garnish.backbone("tf_efficientnet_b0", str(TRACER))
    assert [f.channels for f in trunk.features] == [24, 40, 112, 320]
    theirs = timm.create_model("tf_efficientnet_b0", features_only=True).eval()
    unknown = theirs.load_state_dict(load_file(TRACER), strict=False)
    assert not unknown.unexpected_keys and all("num_batches_tracked" in k for k in unknown.missing_keys)
    x = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        for got, want in zip(trunk(x), theirs(x)[1:], strict=True):
            assert torch.equal(got, want)
    model = garnish.adapt(trunk, garnish.LoRA(rank=2), {"seg": garnish.Semantic(classes=3)})
    assert model(torch.rand(1, 3, 97, 131))["seg"].shape == (1, 3, 97, 131)
