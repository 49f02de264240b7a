"""Models of timm's that somebody holds: a trunk of each gives the model's own maps, and the model stays as it was."""

from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import garnish as gn
import tiny
from garnish.errors import BundleError, OptionError, WeightsError

PLAIN = {"embed_dim": 48, "depth": 4, "num_heads": 3}
SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
VIT, SMALL = "vit_tiny_patch16_224", {**PLAIN, "img_size": (48, 80)}


def model_of(name: str, **options: Any) -> nn.Module:
    """Timm's own, with values at which no part can be left out unseen, in training mode."""
    torch.manual_seed(1)
    made = timm.create_model(name, **options)
    with torch.no_grad():
        for tensor in [*made.parameters(), *(b for n, b in made.named_buffers() if n.endswith("running_mean"))]:
            tensor.add_(0.05 * torch.randn_like(tensor))
    return made


def same(trunk: Any, model: nn.Module, size: tuple[int, int], indices: list[int] | None = None) -> None:
    """Whether the trunk's maps are the model's own ``forward_intermediates`` of a picture."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs = copy.deepcopy(model).eval().forward_intermediates(x, indices=indices, intermediates_only=True)
        for ours, own in zip(trunk(x), theirs, strict=True):
            assert tiny.far(ours, own) < 1e-5


def refused(model: Any, **given: Any) -> str:
    with pytest.raises((OptionError, WeightsError)) as caught:
        gn.backbone(model, **given)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 460, message
    return message


# ---- every family -----------------------------------------------------------------------------------------------

BLOCKS, LEVELS = [0, 1, 2, 3], [1, 2, 3, 4]
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int], list[int] | None, dict[str, Any]]] = {
    "vit": (VIT, SMALL, (48, 80), BLOCKS, {"img_size": [48, 80], "embed_dim": 48, "depth": 4}),
    "vit that was changed": (
        VIT,
        SMALL | {"num_classes": 5, "class_token": False, "global_pool": "avg", "reg_tokens": 2, "qk_norm": True}
        | {"act_layer": "silu", "patch_size": 8, "mlp_ratio": 2.3, "init_values": 0.1, "qkv_bias": False},
        (48, 80), BLOCKS,
        {"img_size": [48, 80], "embed_dim": 48, "depth": 4, "class_token": False, "global_pool": "avg"}
        | {"reg_tokens": 2, "qk_norm": True, "act_layer": "silu", "patch_size": 8, "mlp_ratio": 110 / 48}
        | {"init_values": 1.0, "qkv_bias": False},
    ),
    "dinov2": (
        "vit_small_patch14_dinov2.lvd142m", PLAIN | {"dynamic_img_size": True}, (42, 70), BLOCKS,
        {"embed_dim": 48, "depth": 4, "num_heads": 3},
    ),
    "a tag": (
        "vit_base_patch16_224.dino", PLAIN | {"img_size": 64}, (64, 64), BLOCKS,
        {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 64},
    ),
    "dinov3": (
        "vit_small_patch16_dinov3", PLAIN | {"dynamic_img_size": True, "init_values": 0.1}, (48, 80), BLOCKS,
        {"embed_dim": 48, "depth": 4, "num_heads": 3},
    ),
    "eva02": ("eva02_tiny_patch14_224", PLAIN | {"img_size": 56}, (56, 56), BLOCKS, PLAIN | {"img_size": 56}),
    "swin": (
        "swin_tiny_patch4_window7_224", SWIN | {"img_size": (128, 64), "window_size": 2, "num_classes": 3}, (128, 64),
        None, {k: list(v) if isinstance(v, tuple) else v for k, v in SWIN.items()}
        | {"img_size": [128, 64], "window_size": 2},
    ),
    "swin whose windows timm shrank": (
        "swin_tiny_patch4_window7_224", SWIN | {"img_size": 64, "window_size": 4}, (64, 64), None,
        {k: list(v) if isinstance(v, tuple) else v for k, v in SWIN.items()}
        | {"img_size": 64, "window_size": [4, 4, 4, 2]},
    ),
    "swinv2": (
        "swinv2_tiny_window8_256", SWIN | {"img_size": 64, "window_size": 4}, (64, 64), None,
        {k: list(v) if isinstance(v, tuple) else v for k, v in SWIN.items()}
        | {"img_size": 64, "window_size": [4, 4, 4, 2]},
    ),
    "convnext": (
        "convnext_atto", {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "kernel_sizes": 3, "norm_eps": 1e-4},
        (65, 97), None, {"dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "kernel_sizes": [3, 3, 3, 3]}
        | {"norm_eps": 1e-4},
    ),
    "convnextv2": (
        "convnextv2_atto", {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_classes": 0, "act_layer": "relu"},
        (65, 97), None, {"dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "act_layer": "relu"},
    ),
    "resnet": ("resnet10t", {"num_classes": 7, "layers": (1, 2, 1, 1)}, (65, 97), LEVELS, {"layers": [1, 2, 1, 1]}),
    "dilated resnet": ("resnet10t", {"output_stride": 8}, (64, 96), LEVELS, {"output_stride": 8}),
    "efficientnet": ("test_efficientnet", {"num_classes": 0}, (64, 96), LEVELS, {}),
}  # fmt: skip


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES)
def test_maps_are_the_models_own(case):
    name, options, size, indices, kept = CASES[case]
    model = model_of(name, **options)
    trunk = gn.backbone(model)
    same(trunk, model, size, indices)
    default = timm.models.get_pretrained_cfg(name.split(".")[0]).tag
    assert trunk.name == name.removesuffix(f".{default}")
    known = {option: value for option, value in kept.items() if option not in _of_name(trunk.name, kept)}
    assert trunk.options == pytest.approx(known) if not known else set(trunk.options) == set(known)
    for option, value in known.items():
        assert trunk.options[option] == (pytest.approx(value) if isinstance(value, float) else value), option
    assert trunk.weights_source == "given" and trunk.licence == "not stated (given as a model)"
    assert (trunk.mean, trunk.std) == (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])


def _of_name(name: str, kept: dict[str, Any]) -> list[str]:
    """Options that the name says already."""
    return [option for option in kept if option == "num_heads" and name.startswith(("vit_tiny", "eva02_tiny"))]


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "options"),
    [
        (VIT, {**SMALL, "out_indices": (0, 1, 2, 3)}),
        ("swin_tiny_patch4_window7_224", SWIN | {"img_size": 64, "window_size": 2}),
        ("convnext_atto", {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}),
        ("resnet10t", {}),
        ("resnet10t", {"out_indices": (1, 3)}),
        ("mobilenetv3_small_050", {}),
        ("test_efficientnet", {}),
    ],
)
def test_a_model_of_features_only(name, options):
    model = model_of(name, features_only=True, **options)
    trunk = gn.backbone(model)
    x = torch.randn(1, 3, *((48, 80) if name == VIT else (64, 64)))
    with torch.no_grad():
        theirs = [m if m.shape[1] in model.feature_info.channels() else m.permute(0, 3, 1, 2) for m in model.eval()(x)]
        ours = trunk(x)
        for mine, own in zip(ours, theirs[-len(ours) :], strict=True):
            assert tiny.far(mine, own) < 1e-5
    assert ("out_indices" in trunk.options) == (options.get("out_indices") == (1, 3))


# ---- what stays as it was ---------------------------------------------------------------------------------------


def test_levels_that_a_trunk_does_not_choose_are_told():
    swin = timm.create_model("swin_tiny_patch4_window7_224", **SWIN, features_only=True, out_indices=(1, 3))
    with pytest.warns(UserWarning, match=r"out_indices \(1, 3\); a Swin trunk has no such choice"):
        assert len(gn.backbone(swin).features) == 4
    vit = timm.create_model(VIT, **SMALL, features_only=True, out_indices=(0, 3))
    with pytest.warns(UserWarning, match=r"out_indices \(0, 3\); a ViT trunk of 4 blocks"):
        gn.backbone(vit)
    cut = timm.create_model("convnext_atto", features_only=True, out_indices=(0, 2))
    assert "has no stages behind level 2 (out_indices)" in refused(cut)


def test_the_model_is_not_changed_nor_shared():
    model = model_of(VIT, **SMALL)
    model.eval()
    model.blocks[1].train()
    called = []
    handle = model.blocks[0].register_forward_hook(lambda *given: called.append(given))
    model(torch.randn(1, 3, 48, 80)).sum().backward()
    called.clear()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    ids = [id(parameter) for parameter in model.parameters()]
    random.seed(0)
    drawn = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.warns(UserWarning, match=r"1 module of the model with hooks \(first: blocks\.0\); they are not taken"):
        trunk = gn.backbone(model)
    assert torch.equal(torch.get_rng_state(), drawn[0]) and random.getstate() == drawn[2]
    assert np.random.get_state()[1].tolist() == drawn[1]
    with torch.no_grad():
        for tensor in trunk.frozen_tensors().values():
            tensor.zero_()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, grads[n]) for n, p in model.named_parameters() if n in grads)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert [id(parameter) for parameter in model.parameters()] == ids
    assert not called and len(model.blocks[0]._forward_hooks) == 1
    handle.remove()


def test_adapt_takes_a_model_and_trains_beside_it():
    model = model_of(VIT, **SMALL)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = gn.adapt(model, gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10.0)})
    before = {name: tensor.detach().clone() for name, tensor in made.trained_parameters().items()}
    optimizer = torch.optim.SGD(made.trained_parameters().values(), lr=0.1)
    made.train()
    made(torch.rand(1, 3, 48, 80))["depth"].square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in made.trained_parameters().items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(OptionError, match=r"adapt: backbone: .*got str 'resnet18'"):
        gn.adapt("resnet18", gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10.0)})


@pytest.mark.slow
def test_wrappers_are_taken_off_and_it_is_said():
    model = model_of(VIT, **SMALL)
    own = gn.backbone(model).fingerprint()
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        with pytest.warns(UserWarning, match=f"the model inside {type(wrapped).__name__} is taken, without it"):
            assert gn.backbone(wrapped).fingerprint() == own


def test_options_and_rates_beside_a_model():
    model = model_of(VIT, **SMALL, drop_path_rate=0.2)
    assert gn.backbone(model).options["drop_path_rate"] == 0.2
    trunk = gn.backbone(model, drop_path=0.1)
    assert trunk.drop_path == 0.1 and "drop_path_rate" not in trunk.options
    assert "depth 3" in refused(model, options={"depth": 3}) or "blocks" in refused(model, options={"depth": 3})
    with pytest.raises(OptionError, match="unknown option 'depht'"):
        gn.backbone(model, options={"depht": 4})
    swin = model_of("swin_tiny_patch4_window7_224", **SWIN, img_size=64, window_size=2)
    assert gn.backbone(swin, taps="merged").taps_at == "merged"
    assert 'use taps="stage"' in refused(model, taps="merged")


def test_how_pictures_are_normalised_is_kept(tmp_path):
    model = model_of(VIT, **SMALL)
    model.pretrained_cfg = model.pretrained_cfg | {"mean": (0.1, 0.2, 0.3)}
    trunk = gn.backbone(model)
    assert trunk.mean == (0.1, 0.2, 0.3) and trunk.options["mean"] == [0.1, 0.2, 0.3] and "std" not in trunk.options
    assert gn.backbone(trunk.name, options=trunk.options).mean == (0.1, 0.2, 0.3)


# ---- bundles ----------------------------------------------------------------------------------------------------


def test_a_bundle_of_a_given_model_and_its_remedies(tmp_path):
    model = model_of(VIT, **SMALL)
    made = gn.adapt(model, gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10.0)}).eval()
    made.save(tmp_path / "bundle")
    x = torch.rand(1, 3, 48, 80)
    with pytest.raises(BundleError, match="was a model in memory; pass backbone=") as caught:
        gn.load(tmp_path / "bundle")
    assert len(str(caught.value)) < 460
    want = gn.load(tmp_path / "bundle", backbone=gn.backbone(model))(x)["depth"]
    assert tiny.far(want, made(x)["depth"]) < 1e-2  # of what a bundle stores in half precision
    told = str(caught.value)
    line = told[told.index("safetensors.torch.save_file(") :].replace("'trunk.safetensors'", "file")
    file = str(tmp_path / "trunk.safetensors")
    import safetensors.torch

    exec(line, {"safetensors": safetensors, "model": model, "file": file})
    assert torch.equal(gn.load(tmp_path / "bundle", weights=file)(x)["depth"], want)
    other = model_of(VIT, **SMALL, num_classes=2)
    nn.init.zeros_(other.blocks[0].attn.proj.bias)
    with pytest.raises(BundleError, match=r"weights: given.*pass backbone=, gn\.backbone of that model"):
        gn.load(tmp_path / "bundle", backbone=gn.backbone(other))
    found = gn.adapt(gn.backbone(model, file), gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10.0)})
    assert found.backbone.weights_source == file
    found.save(tmp_path / "found")
    gn.load(tmp_path / "found")
    nn.init.zeros_(model.blocks[0].attn.proj.bias)
    assert "differ (first in blocks.0.attn.proj.bias)" in refused(model, weights=file)
    assert "weights=False asks for random ones" in refused(model, weights=False)


def test_files_of_features_only_are_read_as_well(tmp_path):
    model = model_of("convnext_atto", dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), features_only=True)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, tmp_path / "trunk.safetensors")
    trunk = gn.backbone(model, str(tmp_path / "trunk.safetensors"))
    assert trunk.weights_source.endswith("trunk.safetensors")
    cnn = model_of("resnet10t", features_only=True)
    save_file({n: t.contiguous() for n, t in cnn.state_dict().items()}, tmp_path / "cnn.safetensors")
    assert gn.backbone(cnn, str(tmp_path / "cnn.safetensors")).weights_source.endswith("cnn.safetensors")


# ---- what is refused --------------------------------------------------------------------------------------------


class Mine(timm.models.vision_transformer.VisionTransformer):
    """A class of the reader's own."""


def test_what_no_tensor_shows_is_found():
    model = model_of(VIT, **SMALL)
    model.blocks[2].norm1.eps = 0.1
    assert "blocks.2.norm1 of this vit_tiny_patch16_224 has eps 0.1, where timm builds 1e-06" in refused(model)
    model = model_of(VIT, **SMALL)
    model.blocks[2].mlp.act = nn.Tanh()
    assert "differ among blocks (GELU at blocks.0.mlp.act, Tanh at blocks.2.mlp.act)" in refused(model)
    model = model_of(VIT, **SMALL)
    model.blocks[0].mlp.act = nn.Tanh()  # whose kind is read as that of all
    assert "differ among blocks (Tanh at blocks.0.mlp.act, GELU at blocks.1.mlp.act)" in refused(model)
    model = model_of(VIT, **SMALL)
    model.blocks[3].mlp.forward = torch.tanh
    assert "map 3 of this vit_tiny_patch16_224 differs by" in refused(model)
    model = model_of("resnet10t")
    model.layer1[0].conv1.dilation = model.layer1[0].conv1.padding = (2, 2)
    assert "layer1.0.conv1 of this resnet10t has dilation (2, 2), where timm builds (1, 1)" in refused(model)


def test_changed_models_are_refused_in_a_line():
    own = Mine(img_size=(48, 80), **PLAIN)
    assert "derived from timm's VisionTransformer" in refused(own)
    own.pretrained_cfg = {"architecture": VIT}
    assert "Mine of test_given_timm is not the VisionTransformer that timm builds" in refused(own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(model_of(VIT, **SMALL).eval(), {nn.Linear})
    assert "quantised" in refused(quantised)
    pruned = model_of(VIT, **SMALL)
    nn.utils.parametrizations.weight_norm(pruned.blocks[0].mlp.fc1)
    assert "blocks.0.mlp.fc1 of this vit_tiny_patch16_224 is ParametrizedLinear" in refused(pruned)
    assert "is float16, and trunks are float32; give model.float()" in refused(model_of(VIT, **SMALL).half())
    assert "is float64, and trunks are float32" in refused(model_of(VIT, **SMALL).double())
    with torch.device("meta"):
        empty = timm.create_model(VIT, **SMALL)
    assert "on the device 'meta', so it has no values" in refused(empty)
    grey = model_of(VIT, **SMALL, in_chans=1)
    assert "takes 1 band (in_chans)" in refused(grey)
    few = model_of(VIT, **SMALL | {"depth": 2})
    assert "has 2 blocks, and a plain trunk needs 4" in refused(few)
    few.blocks[1].mlp.act = nn.ReLU()
    assert "differ among blocks" in refused(few)
    assert "Linear of torch.nn.modules.linear is no model of timm's" in refused(nn.Linear(2, 2))
    assert "no family builds mixer_s32_224" in (told := refused(timm.create_model("mixer_s32_224")))
    assert "docs/add-a-backbone.md" in told and "nearest: " in told
    bad = model_of(VIT, **SMALL)
    nn.init.constant_(bad.blocks[0].mlp.fc1.bias, float("nan"))
    assert "blocks.0.mlp.fc1.bias" in refused(bad)


def test_peft_is_refused_and_its_remedy_works():
    peft = pytest.importorskip("peft")
    model = model_of(VIT, **SMALL)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["qkv"], init_lora_weights=False))
    assert "give model.merge_and_unload()" in refused(wrapped)
    assert "PEFT changed this VisionTransformer in place (blocks.0.attn.qkv)" in refused(model)
    merged = wrapped.merge_and_unload()
    same(gn.backbone(merged), merged, (48, 80), BLOCKS)


def test_a_model_without_a_name_and_the_remedy():
    model = timm.models.vision_transformer.VisionTransformer(img_size=(48, 80), **PLAIN)
    told = refused(model)
    line = told[told.index("model.pretrained_cfg = ") : told.index(", with its own")]
    exec(line, {"model": model})
    trunk = gn.backbone(model)
    same(trunk, model, (48, 80), BLOCKS)
