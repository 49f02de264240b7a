"""Options of backbones: what a family states reaches it, within bounds; nothing else does, and nothing escapes."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import pkgutil
import re
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import timm
import torch
from safetensors.torch import save_file

import garnish as gn
import garnish.backbones
import tiny
from garnish.backbones import buildable, mit, timm_models
from garnish.backbones.stored_weights import StoredWeights
from garnish.errors import BundleError, OptionError, WeightsError
from garnish.recipes.recipe import read_recipe

VIT, TINY = "vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
SWIN, SWIN2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
#: what timm takes beside an architecture: paths, addresses, formats, ways to build
NOT_OURS = {
    "checkpoint_path": "FILE",
    "pretrained_cfg": {"file": "FILE"},
    "pretrained_cfg_overlay": {"file": "FILE", "custom_load": False},
    "cache_dir": "FILE",
    "pretrained": True,
    "scriptable": True,
    "exportable": True,
    "features_only": True,
    "feature_cfg": {"out_indices": [0]},
    "pretrained_strict": False,
    "pruned": True,
    "num_classes": 3,
    "in_chans": 1,
    "block_fn": "torch.nn.Linear",
    "embed_layer": "torch.nn.Linear",
    "weight_init": "jax",
    "device": "cuda",
    "dtype": "float16",
}


def refused(name: str, options: dict[str, Any]) -> str:
    with pytest.raises(OptionError) as caught:
        gn.backbone(name, options=options)
    line = str(caught.value)
    assert "\n" not in line and len(line) <= 2000 and name in line
    return line


class Runs:
    """Something that leaves a mark when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return open, (self.mark, "w")


@pytest.mark.parametrize("short", list(tiny.BACKBONES))
def test_what_no_family_states_reaches_no_constructor(short, tmp_path, monkeypatch):
    file = tmp_path / "w.pth"
    torch.save({"a": Runs(str(tmp_path / "ran"))}, file)
    _, name, options = tiny.BACKBONES[short]
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    for option, value in NOT_OURS.items():
        given = json.loads(json.dumps(value).replace("FILE", str(file)))
        assert f"unknown option {option!r}" in refused(name, {**options, option: given})
    assert not (tmp_path / "ran").exists()


def test_neither_in_a_bundle_nor_in_a_recipe(tmp_path):
    trunk = gn.backbone(VIT, options=TINY)
    tensors = {trunk.source_names[name]: tensor.contiguous() for name, tensor in trunk.frozen_tensors().items()}
    save_file(tensors, tmp_path / "trunk.safetensors")
    trunk = gn.backbone(VIT, str(tmp_path / "trunk.safetensors"), options=TINY)
    gn.adapt(trunk, gn.LoRA(rank=2), {"depth": gn.Depth()}).save(tmp_path / "bundle")
    assert gn.load(tmp_path / "bundle").backbone.options == TINY
    file = tmp_path / "bundle" / "bundle.json"
    facts = json.loads(file.read_text())
    facts["backbone"]["options"]["checkpoint_path"] = str(tmp_path / "w.pth")
    file.write_text(json.dumps(facts))
    (tmp_path / "bundle" / "SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(BundleError, match="unknown option 'checkpoint_path'"):
        gn.load(tmp_path / "bundle")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"backbone: {{name: {VIT}, options: {{cache_dir: x}}}}\nadapter: LoRA\ntrain: {{steps: 1}}\n")
    with pytest.raises(OptionError, match="unknown option 'cache_dir'"):
        read_recipe(recipe).backbone.build()


def option_classes() -> dict[str, type]:
    found = {}
    for info in pkgutil.walk_packages(garnish.backbones.__path__, "garnish.backbones."):
        module = importlib.import_module(info.name)
        found |= {n: c for n, c in vars(module).items() if n.endswith("Options") and dataclasses.is_dataclass(c)}
    return found


def leaves(hint: object) -> list[object]:
    if get_origin(hint) is Literal:
        return [Literal]
    if get_origin(hint) is Annotated:  # a bound
        return [("bounded", leaf) for leaf in leaves(get_args(hint)[0])]
    inner = [one for one in get_args(hint) if one is not Ellipsis]
    return [leaf for one in inner for leaf in leaves(one)] if inner else [hint]


def test_options_are_numbers_within_bounds_flags_and_names_that_are_listed():
    classes = option_classes()
    assert {"ViTOptions", "EvaOptions", "SwinOptions", "SwinV2Options", "ConvNeXtOptions", "CNNOptions"} < set(classes)
    for name, cls in classes.items():
        hints = get_type_hints(cls, include_extras=True)
        told = re.findall(r"\w+", (cls.__doc__ or "") + " ".join(b.__doc__ or "" for b in cls.__mro__))
        for field in dataclasses.fields(cls):
            for leaf in leaves(hints[field.name]):
                while isinstance(leaf, tuple) and isinstance(leaf[1], tuple):
                    leaf = leaf[1]
                allowed = leaf in (Literal, bool, type(None), ("bounded", int), ("bounded", float))
                assert allowed, f"{name}.{field.name}: {leaf}"
            assert field.name in told, f"{name}.{field.name} is not told in its docstring"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (VIT, {"depth": 100_000}, "expected a whole number from 1 to 128"),
        (VIT, {"embed_dim": 65_536, "depth": 1000}, "from 1 to 16,384"),
        (VIT, {"embed_dim": 16_384, "depth": 128, "num_heads": 1}, "tensors have 1,64"),
        (VIT, {"depth": 10**26}, "depth: expected"),
        (VIT, {"mlp_ratio": float("nan")}, "mlp_ratio: expected a number from 0.125 to 64"),
        (VIT, {"mlp_ratio": 1e308}, "mlp_ratio: expected"),
        (VIT, {"class_token": 1}, "class_token: expected bool"),
        (VIT, {"depth": True}, "depth: expected"),
        (VIT, {"act_layer": "torch.nn.GELU"}, "act_layer: expected one of gelu"),
        (VIT, {"norm_layer": "batchnorm2d"}, "norm_layer: expected one of layernorm"),
        (SWIN, {"depths": [100, 100, 1, 1]}, "128 in all"),
        (SWIN, {"window_size": 1000}, "window_size: expected"),
        (SWIN, {"depths": [1] * 200_000}, "depths: expected 1 to 8"),
        ("convnext_tiny", {"kernel_sizes": 4}, "expected an odd whole number"),
        ("resnet18", {"layers": [1000, 1, 1, 1]}, "layers: expected"),
        ("resnet18", {"out_indices": [3, 1]}, "rising whole numbers"),
        ("densenet121", {"growth_rate": 16_384, "bn_size": 64}, "tensors have"),
        ("mit_b0", {"depths": [1000, 2, 2, 2]}, "4 positive integers of at most 64"),
        ("mit_b0", {"sr_ratios": [61, 59, 53, 47]}, "multiples of 286,883,488 pixels"),
    ],
)
def test_what_asks_for_too_much_is_refused_at_once(name, options, said):
    gn.backbone("test_efficientnet", options={"drop_path_rate": 0.1})  # imports and lists of names
    gc.freeze()  # what other tests left is not looked through meanwhile
    begun = time.process_time()
    try:
        assert said in refused(name, options)
        # 128 blocks without numbers are built in 2 to 4 s, by what else the machine does; numbers would never be
        assert time.process_time() - begun < 10
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (VIT, {"embed_dim": 50}, "divisible"),
        (VIT, {"img_size": 8}, "cannot be run"),
        (VIT, {"depth": 2}, "use depth >= 4"),
        (VIT, {"class_token": False}, "timm cannot build it with {'class_token': False}"),
        (VIT, {"patch_size": [16, 8]}, "not square"),
        ("vit_small_patch16_dinov3", {"embed_dim": 50, "num_heads": 2, "depth": 4}, "cannot be run"),
        ("vit_small_patch16_dinov3", {"num_kv_heads": 5}, "cannot build"),
        (SWIN, {"depths": [1, 2]}, "depths has 2 entries, num_heads has 4 entries by its name"),
        (SWIN, {"embed_dim": 8, "num_heads": [16] * 4, "depths": [1] * 4}, "cannot b"),
        (SWIN, {"window_size": [7, 7, 7]}, "cannot build"),
        (SWIN2, {"pretrained_window_sizes": [1], "depths": [1] * 4}, "cannot build"),
        ("convnext_tiny", {"dims": [8, 16]}, "dims has 2 entries, depths has 4"),
        ("resnet18", {"out_indices": [9]}, "cannot build"),
        ("resnet18", {"layers": [1, 1]}, "cannot build"),
        ("resnet18", {"output_stride": 2}, "AssertionError"),
        ("test_efficientnet", {"layers": [1]}, "layers"),
        ("test_efficientnet", {"norm_layer": "groupnorm"}, "divisible"),
        ("mit_b0", {"mlp_ratio": 1e-9}, "mlp_ratio: expected a number from 0.125 to 64"),
        (VIT, {"mlp_ratio": 0.1}, "mlp_ratio: expected a number from 0.125 to 64"),
        (f"{VIT}.nonsense", {}, "Invalid pretrained tag"),
        ("resnet18.x:y", {}, "unknown backbone"),
        (f"{VIT}.x/../resnet18", {}, "is no Hub id"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(name, options, said):
    assert said in refused(name, options)


def test_stages_of_another_number_are_built():
    trunk = gn.backbone(SWIN, options={"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2]})
    assert [feature.channels for feature in trunk.features] == [8, 16]


def test_the_machine_must_hold_it(monkeypatch):
    monkeypatch.setattr(buildable, "machine_bytes", lambda: 100_000)
    monkeypatch.setattr(buildable, "_TRIED", {})
    assert "its tensors have 0.0 GB, more than the 0.0 GB of this machine's memory" in refused(VIT, TINY)
    with torch.device("meta"):  # a plan asks for shapes
        gn.backbone(VIT, options=TINY)


def test_trying_draws_no_random_numbers_and_happens_once(monkeypatch):
    monkeypatch.setattr(buildable, "_TRIED", {})
    torch.manual_seed(0)
    trunk = gn.backbone(VIT, options=TINY)
    torch.manual_seed(0)
    theirs = timm.create_model(VIT, num_classes=0, dynamic_img_size=True, **TINY).state_dict()
    assert all(torch.equal(t, theirs[trunk.source_names[n]]) for n, t in trunk.frozen_tensors().items())
    assert len(buildable._TRIED) == 1
    asked = []
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: (asked.append(torch.empty(0).is_meta), create(*a, **k))[1]
    )
    gn.backbone(VIT, options=dict(TINY))
    assert asked == [False]


def test_endless_options_are_refused():
    endless: list[object] = []
    endless.append(endless)
    for value in (endless, {"a": endless}):
        assert "depth: expected" in refused(VIT, {"depth": value})
        assert "depths: expected" in refused("mit_b0", {"depths": value})


def noting(function: Callable[..., Any], shaped: list[bool]) -> Callable[..., Any]:
    """The function, which notes first whether what it builds has shapes alone."""

    def call(*args: object, **given: object) -> object:
        shaped.append(torch.empty(0).is_meta)
        return function(*args, **given)

    return call


def small(short: str) -> tuple[str, dict[str, Any]]:
    return tiny.BACKBONES[short][1:]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("short", ["vit", "swinv2", "convnext", "dinov3", "cnn", "mit"])
def test_shapes_are_compared_before_anything_is_built_or_read(short, suffix, tmp_path, monkeypatch):
    name, options = small(short)
    trunk = gn.backbone(name, options=options)
    held = {trunk.source_names[n]: t.contiguous() for n, t in trunk.frozen_tensors().items()}
    file = tmp_path / f"w{suffix}"

    def write(tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, file) if suffix == ".safetensors" else torch.save(tensors, file)

    write(held)
    assert gn.backbone(name, str(file), options=options).fingerprint() == trunk.fingerprint()
    last = [name for name, tensor in held.items() if tensor.is_floating_point()][-1]
    leaf = ".".join(last.split(".")[-2:])
    monkeypatch.setattr(StoredWeights, "read", lambda _: pytest.fail("values were read"))
    shaped: list[bool] = []
    monkeypatch.setattr(timm, "create_model", noting(timm.create_model, shaped))
    monkeypatch.setattr(mit, "_stages", noting(mit._stages, shaped))
    for wrong, said in ((torch.zeros(3, 5, 7), "shape"), (held[last].to(torch.int32), "holds int32"), (None, leaf)):
        write({n: t for n, t in {**held, last: wrong}.items() if t is not None})
        with pytest.raises(WeightsError, match=re.escape(said)):
            gn.backbone(name, str(file), options=options)
    assert shaped and all(shaped)


def test_published_weights_are_fetched_for_true_alone(monkeypatch):
    """And what goes wrong then, whatever the network's client raises, is about fetching."""
    asked = []

    def create(name: str, *, pretrained: bool, **options: object) -> object:
        asked.append((pretrained, torch.empty(0).is_meta))
        if pretrained:
            raise ConnectionAbortedError("no\nnetwork")
        return timm_create(name, pretrained=False, **options)

    timm_create = timm.create_model
    monkeypatch.setattr(timm_models.timm, "create_model", create)
    with pytest.raises(WeightsError, match=r"published weights cannot be fetched \(no network\); give weights"):
        gn.backbone(VIT, True, options=TINY)
    gn.backbone(VIT, False, options=TINY)
    assert [one for one in asked if one[0]] == [(True, False)]
