"""Trunks of shapes that the tiny families leave out equal timm's own models, at the size of the name and at another."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

import garnish
import tiny
from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.errors import GarnishError, OptionError

pytestmark = pytest.mark.reference

PLAIN: dict[str, Any] = {"embed_dim": 48, "depth": 4, "num_heads": 3}
#: name → side of its patches; what of it no tiny trunk has
VITS = {
    "vit_small_patch14_reg4_dinov2": 14,  # registers beside the class token; positions of patches only
    "vit_base_patch14_reg1_tipsv2": 14,
    "vit_medium_patch16_reg4_gap_256": 16,  # registers and no class token
    "vit_base_patch16_gap_224": 16,  # no prefix token at all
    "vit_so400m_patch16_siglip_256": 16,  # pooled by attention; another hidden width
    "vit_base_patch16_clip_quickgelu_224": 16,  # a norm before the blocks, no bias of patches, another activation
    "vit_base_patch8_224": 8,
    "vit_giant_patch14_reg4_dinov2": 14,  # gated MLPs
    "vit_dlittle_patch16_reg1_gap_256": 16,  # differential attention
    "vit_base_patch16_radio_v3": 16,
    "beit3_base_patch16_224": 16,  # norms inside attention and MLP
    "aimv2_1b_patch14_224": 14,  # root mean square norms, no biases, gated MLPs
    "flexivit_base": 16,
    "test_vit3": 16,  # a norm of queries and keys
    "test_vit4": 16,
}
EVAS = {
    "vit_small_patch16_dinov3_qkvb": 16,
    "vit_huge_plus_patch16_dinov3": 16,  # gated MLPs
    "eva02_small_patch14_224": 14,  # biases of queries and values, norms inside
    "eva02_large_patch14_clip_224": 14,
    "eva_giant_patch14_224": 14,  # no rotary positions
    "vit_base_patch16_rope_ape_224": 16,  # rotary positions and learnt ones
    "vit_base_patch16_rope_reg1_gap_256": 16,  # no class token
    "vit_mediumd_patch16_rope_reg1_gap_256": 16,
    "vit_pe_core_base_patch16_224": 16,  # a norm before the blocks
    "vit_pe_lang_large_patch14_448": 14,  # no class token, no norm behind
}
#: timm's own small CNNs: with group and layer norms, evolved norms, weights that are standardised, no norms
CNNS = ["test_efficientnet_gn", "test_efficientnet_ln", "test_efficientnet_evos", "test_byobnet", "test_resnet"]
CNNS += ["test_nfnet"]


def twin(trunk: Backbone, **options: Any) -> nn.Module:
    """Timm's own model with the trunk's weights."""
    made = timm.create_model(trunk.name, num_classes=0, **{**trunk.options, **options})
    state = {trunk.source_names[n]: t for n, t in trunk.frozen_tensors().items()}
    assert not made.load_state_dict(state, strict=False).unexpected_keys
    return made.eval()


def needs(name: str) -> None:
    """Skip where the installed timm, which may be the least one, has no such model yet."""
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")


def equals_timm(name: str, options: dict[str, Any], sizes: list[tuple[int, int]], **fixed: Any) -> Backbone:
    needs(name)
    read = {7: [1, 3, 4, 6]}.get(options.get("depth", 4))  # the ends of four parts of seven blocks
    trunk = garnish.backbone(name, options=options)
    tiny.randomise_trunk(trunk)
    theirs = twin(trunk, **fixed)
    for size in sizes:
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            wanted = theirs.forward_intermediates(x, read, intermediates_only=True, output_fmt="NCHW")
            for got, want in zip(trunk(x), wanted, strict=True):
                assert tiny.far(got, want) < 1e-5, size
    return trunk


def plain(name: str, patch: int, **options: Any) -> None:
    sizes = [(4 * patch, 4 * patch), (3 * patch, 6 * patch)]
    equals_timm(name, {"img_size": 4 * patch, **PLAIN, **options}, sizes, dynamic_img_size=True)


@pytest.mark.parametrize(("name", "patch"), VITS.items())
def test_vits(name, patch):
    plain(name, patch)


@pytest.mark.parametrize(
    "options",
    [
        {"qkv_bias": False, "proj_bias": False},
        {"qk_norm": True, "init_values": 1e-1},
        {"class_token": False, "reg_tokens": 2, "global_pool": "avg", "no_embed_class": True},
        {"class_token": True, "reg_tokens": 2, "no_embed_class": False},
        {"pos_embed": "none"},
        {"patch_size": 9, "img_size": 36},
        {"depth": 7, "mlp_ratio": 2.5},
    ],
    ids=lambda options: "-".join(options),
)
def test_vits_by_option(options):
    plain("vit_small_patch16_224", options.get("patch_size", 16), **options)


@pytest.mark.parametrize(("name", "patch"), EVAS.items())
def test_evas(name, patch):
    plain(name, patch)


def test_an_eva_with_fewer_keys_than_queries():
    plain("vit_large_patch16_sapiens2", 16, num_heads=4, num_kv_heads=[4, 2, 2, 4])


def test_swin_with_windows_that_differ_by_stage():
    trunk = equals_timm(
        "swin_s3_tiny_224", {"embed_dim": 24, "depths": [2] * 4, "num_heads": [1, 2, 2, 4]}, [(224, 224)]
    )
    assert [stage.blocks[0]["attn"].branch.layer.size[0] for stage in trunk.stages] == [7, 7, 14, 7]


@pytest.mark.parametrize("name", ["convnext_zepto_rms_ols", "test_convnext3", "convnext_nano_ols"])
def test_convnexts(name):
    equals_timm(name, {"dims": [16, 24, 32, 48], "depths": [2, 1, 2, 1]}, [(64, 64), (64, 96)])


@pytest.mark.parametrize("name", CNNS)
def test_cnns(name):
    trunk = garnish.backbone(name)
    tiny.randomise_trunk(trunk)
    theirs = twin(trunk)
    if not hasattr(theirs, "forward_intermediates"):
        pytest.skip(f"timm {timm.__version__} cannot read maps of {name}")
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        got, wanted = trunk(x), theirs.forward_intermediates(x, intermediates_only=True)
    wanted = [m for m in wanted if m.shape[-1] <= 24]
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert tiny.far(one, other) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ViT", "Eva", "ConvNeXt"])
def test_each_shape_that_timm_knows_equals_timms_or_is_refused(family):
    """Every name of a family; of those that build the same layers, one."""
    seen = set()
    for name in registry.find("backbones", family).names():
        if family == "ConvNeXt":
            side, fixed = 32, {}
            options: dict[str, Any] = {"dims": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
        else:
            with torch.device("meta"):
                side = timm.create_model(name).patch_embed.patch_size[0]
            options, fixed = {"img_size": 4 * side, **PLAIN}, {"dynamic_img_size": True}
        try:
            trunk = garnish.backbone(name, options=options)
        except GarnishError:
            continue
        layers = repr(trunk.stem), repr(trunk.stages), tuple(t.shape for t in trunk.frozen_tensors().values())
        if layers not in seen:
            seen.add(layers)
            equals_timm(name, options, [(4 * side, 4 * side), (3 * side, 6 * side)], **fixed)
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("name", "options"),
    [("vit_small_patch16_224", {"embed_dim": 50, "num_heads": 3}), ("vit_large_patch16_sapiens2", PLAIN)],
)
def test_what_timm_asserts_is_refused_in_one_line(name, options):
    needs(name)
    with pytest.raises(OptionError, match=name) as caught:
        garnish.backbone(name, options=options)
    assert "\n" not in str(caught.value)


def test_running_statistics_belong_to_the_trunk(tmp_path):
    """One running variance changed is another trunk: its fingerprint differs, and a bundle of it is refused."""
    model = tiny.model("cnn", garnish.LoRA(rank=2), tasks=("seg",))
    model.save(tmp_path / "bundle")
    other = tiny.backbone("cnn")
    name, variance = next((n, t) for n, t in other.frozen_tensors().items() if n.endswith("running_var"))
    assert not isinstance(variance, nn.Parameter)
    before = other.fingerprint()
    assert before == model.backbone.fingerprint(), name
    variance[-1] *= 1.5
    assert other.fingerprint() != before
    garnish.load(tmp_path / "bundle", backbone=tiny.backbone("cnn"))
    with pytest.raises(GarnishError, match="fingerprint") as caught:
        garnish.load(tmp_path / "bundle", backbone=other)
    assert "\n" not in str(caught.value)
