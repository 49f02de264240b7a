"""Models of transformers as trunks: of a folder that transformers wrote, and of the object, against its own states."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import garnish as gn
import tiny
import transformers_cases as cases
from garnish import registry
from garnish.backbones.transformers_names import in_own_names, transformers_model
from garnish.errors import OptionError, WeightsError

pytestmark = pytest.mark.reference


def close(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, own in zip(ours, theirs, strict=True):
        assert mine.shape == own.shape
        assert float((mine - own).abs().max() / own.abs().max()) < 1e-5


@pytest.mark.parametrize("short", cases.CASES)
def test_a_folder_and_the_object_give_the_models_own_maps(short, tmp_path):
    made = cases.model(short)
    config = cases.saved(made, tmp_path)
    name, options = cases.named(config)
    held = copy.deepcopy(made).train()
    before = {key: tensor.clone() for key, tensor in held.state_dict().items()}
    state = torch.random.get_rng_state()
    trunk = gn.backbone(held)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert held.training and all(module.training for module in held.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in held.state_dict().items())
    assert trunk.weights_source == "given"
    read = gn.backbone(name, str(tmp_path), options=options)
    assert read.fingerprint() == trunk.fingerprint() and read.weights_source == str(tmp_path)
    height, width = cases.CASES[short][1]
    for size in ((height, width), (width, height)):
        images = torch.randn(2, 3, *size)
        theirs = cases.maps(short, made, images)
        with torch.no_grad():
            close(trunk(images), theirs)
            close(read(images), theirs)


@pytest.mark.parametrize("short", cases.CASES)
def test_names_of_both_versions_say_the_same(short, tmp_path):
    made = cases.model(short)
    config = cases.saved(made, tmp_path)
    cls = transformers_model(config, "config.json")
    if cls.family == "MiT":
        return  # it reads both itself
    fourth, fifth = cls.tensors(load_file(tmp_path / "model.safetensors")), cls.tensors(made.state_dict())
    meta = cls.tensors({key: tensor.to("meta") for key, tensor in made.state_dict().items()})
    assert fourth is not None and fifth is not None and meta is not None
    assert fourth.keys() == fifth.keys() == meta.keys()
    assert all(torch.equal(tensor, fifth[key]) and meta[key].shape == tensor.shape for key, tensor in fourth.items())
    others = [other for other in registry.classes("transformers").values() if other is not cls]
    assert all(other.tensors(made.state_dict()) is None for other in others)


@pytest.mark.parametrize("family", ["ViT", "Eva", "Swin", "ConvNeXt", "MiT"])
def test_tensors_that_transformers_did_not_name_are_left_alone(family):
    assert in_own_names(family, {"blocks.0.norm1.weight": torch.zeros(3), "x": torch.zeros(())}) is None


#: published configurations → the trunk's name, and what must be told beside it
PUBLISHED = [
    (
        {"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": 518},
        "vit_small_patch14_dinov2",
        {"pos_antialias": False},
    ),
    (
        {"model_type": "dinov2", "hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40}
        | {"image_size": 518, "use_swiglu_ffn": True},
        "vit_giant_patch14_dinov2",
        {"pos_antialias": False},
    ),
    (
        {"model_type": "dinov2_with_registers", "image_size": 518, "patch_size": 14},
        "vit_base_patch14_reg4_dinov2",
        {},
    ),
    ({"model_type": "dinov3_vit", "num_register_tokens": 4}, "vit_small_patch16_dinov3_qkvb", {}),
    (
        {"model_type": "dinov3_vit", "num_register_tokens": 4, "hidden_size": 1280, "num_attention_heads": 20}
        | {"num_hidden_layers": 32, "intermediate_size": 5120, "use_gated_mlp": True, "hidden_act": "silu"},
        "vit_huge_plus_patch16_dinov3_qkvb",
        {},
    ),
    ({"model_type": "vit"}, "vit_base_patch16_224", {"layer_norm_eps": 1e-12, "pos_antialias": False}),
    ({"model_type": "swin"}, "swin_tiny_patch4_window7_224", {}),
    ({"model_type": "convnext"}, "convnext_tiny", {}),
    ({"model_type": "segformer"}, "mit_b0", {"norm_eps": 1e-5, "embed_norm_eps": 1e-5}),
]


@pytest.mark.parametrize(("config", "name", "options"), PUBLISHED)
def test_a_published_configuration_is_the_name(config, name, options):
    assert cases.named(config) == (name, options)
    with torch.device("meta"):
        assert gn.backbone(name, options=options).name == name


@pytest.mark.parametrize(
    ("kind", "field", "value", "words"),
    [
        ("vit", "hidden_act", "snake", "hidden_act: expected one of gelu"),
        ("vit", "hidden_size", "768", "hidden_size: expected an integer|hidden_size: expected a whole"),
        ("vit", "hidden_size", 10**9, "hidden_size"),
        ("vit", "hidden_dropout_prob", 0.1, "hidden_dropout_prob: expected 0"),
        ("vit", "image_size", [224, 160], "two that are the same"),
        ("vit", "num_channels", 4, "three channels"),
        ("vit", "layer_norm_eps", 0, "layer_norm_eps"),
        ("vit", "intermediate_size", 16, "hidden width of 16"),
        ("dinov2", "drop_path_rate", 0.3, "timm drops elsewhere"),
        ("dinov2", "use_swiglu_ffn", 1, "use_swiglu_ffn"),
        ("dinov3_vit", "key_bias", True, "key_bias: expected false"),
        ("dinov3_vit", "mlp_bias", False, "mlp_bias: expected true"),
        ("dinov3_vit", "query_bias", False, "query_bias and value_bias differ"),
        ("dinov3_vit", "use_gated_mlp", True, "silu in gated MLPs"),
        ("dinov3_vit", "hidden_act", "relu", "hidden_act"),
        ("dinov3_vit", "rope_theta", float("inf"), "rope_theta"),
        ("dinov3_vit", "rope_scaling", {"type": "linear"}, "rope_scaling"),
        ("swin", "use_absolute_embeddings", True, "no trunk here has it"),
        ("swin", "layer_norm_eps", 1e-6, "all norms of a Swin"),
        ("swin", "hidden_act", "relu", "hidden_act"),
        ("swin", "window_size", 64, "window_size"),
        ("swin", "depths", [2] * 9, "depths"),
        ("segformer", "strides", [4, 2, 2, 1], "strides"),
        ("segformer", "mlp_ratios", [4, 4, 2, 4], "that are the same"),
        ("segformer", "num_encoder_blocks", 3, "num_encoder_blocks"),
        ("convnext", "layer_scale_init_value", 0, "layer_scale_init_value"),
        ("dinov3_convnext", "hidden_sizes", [0, 1, 2, 3], "hidden_sizes"),
    ],
)
def test_a_configuration_that_no_trunk_computes_is_refused_in_one_line(kind, field, value, words):
    with pytest.raises(OptionError, match=words) as caught:
        cases.named({"model_type": kind, field: value})
    told = str(caught.value)
    assert "\n" not in told and len(told) < 400 and told.startswith("config.json: ")


@pytest.mark.parametrize("config", [{}, {"model_type": "beit"}, {"model_type": ["vit"]}, {"model_type": None}])
def test_an_architecture_that_is_not_known_is_refused_by_name(config):
    with pytest.raises(OptionError, match=r"model_type .*dinov2"):
        transformers_model(config, "config.json")


def test_an_object_that_is_not_as_its_configuration_says_is_refused():
    made = cases.model("vit")
    made.vit.layers[1].mlp.activation_fn = torch.nn.ReLU()
    with pytest.raises(OptionError, match=r"map 2 of .* differs from the model's own"):
        gn.backbone(made)


def test_an_object_in_half_precision_becomes_a_trunk_in_float32():
    trunk = gn.backbone(cases.model("dinov2").bfloat16())
    assert {tensor.dtype for tensor in trunk.frozen_tensors().values()} == {torch.float32}


def test_tensors_that_lack_or_are_too_many_are_refused(tmp_path):
    made = cases.model("dinov2")
    name, options = cases.named(cases.saved(made, tmp_path))
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    anchor = "dinov2.encoder.layer.2."
    for change, words in (
        ({anchor + "norm1.weight": None}, "lack blocks.2.norm1.weight"),
        ({anchor + "lora.weight": torch.zeros(3)}, "hold the unknown encoder.layer.2.lora.weight"),
        ({anchor + "attention.attention.query.weight": None}, "lack blocks.2.attn.qkv.weight"),
        ({anchor + "norm1.weight": torch.zeros(3)}, "shape"),
        ({anchor + "attention.attention.query.weight": torch.zeros(2, 3, 4)}, "shape|converted"),
    ):
        new = {key: tensor for key, tensor in {**held, **change}.items() if tensor is not None}
        save_file(new, file)
        with pytest.raises(WeightsError, match=words):
            gn.backbone(name, str(file), options=options)


@pytest.mark.parametrize(
    ("short", "changed", "words"),
    [
        ("dinov2", {"num_heads": 4}, "num_heads is 3, not 4"),
        ("vit", {"layer_norm_eps": 1e-6}, "eps is 0.001"),
        ("vit", {"act_layer": "gelu"}, "activation is .*QuickGELU"),
        ("dinov3", {"rope_temperature": 10.0}, "temperature is 100"),
        ("swin", {"num_heads": [2, 2, 4]}, "."),
    ],
)
def test_weights_are_refused_where_their_config_says_another_computation(short, changed, words, tmp_path):
    name, options = cases.named(cases.saved(cases.model(short), tmp_path))
    with pytest.raises(WeightsError, match=words) as caught:
        gn.backbone(name, str(tmp_path), options={**options, **changed})
    assert len(str(caught.value).replace(str(tmp_path), "folder")) < 400
    (tmp_path / "config.json").unlink()
    if short != "swin":
        gn.backbone(name, str(tmp_path), options={**options, **changed})  # nothing says otherwise


def test_weights_are_refused_where_their_pictures_have_other_colours(tmp_path):
    name, options = cases.named(cases.saved(cases.model("vit"), tmp_path))
    beside = tmp_path / "preprocessor_config.json"
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    beside.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}))
    assert gn.backbone(name, str(tmp_path), options=options).mean == (0.5, 0.5, 0.5)
    beside.write_text(json.dumps({"image_mean": imagenet["mean"], "image_std": imagenet["std"]}))
    with pytest.raises(WeightsError, match=r"options=.*0\.485"):
        gn.backbone(name, str(tmp_path), options=options)
    trunk = gn.backbone(name, str(tmp_path), options={**options, **imagenet})
    assert list(trunk.mean) == imagenet["mean"] and list(trunk.std) == imagenet["std"]
    for wrong in ({"rescale_factor": 1 / 127.5}, {"do_rescale": False}, {"image_mean": "grey"}, ["x"]):
        beside.write_text(json.dumps(wrong))
        with pytest.raises(WeightsError, match="preprocessor_config"):
            gn.backbone(name, str(tmp_path), options=options)


def test_a_swin_on_maps_about_a_windows_size():
    """Window 3, last map at stride 16: equal on squares of one window, refused by transformers below, else told."""
    made = cases.model("swin")
    trunk = gn.backbone(made)
    square, below, flat = (torch.randn(1, 3, *size) for size in ((48, 48), (32, 32), (48, 96)))
    with torch.no_grad():
        close(trunk(square), cases.maps("swin", copy.deepcopy(made), square))
        with pytest.raises(RuntimeError):
            cases.maps("swin", copy.deepcopy(made), below)
        trunk(below)
        ours, theirs = trunk(flat), cases.maps("swin", copy.deepcopy(made), flat)
    close(ours[:2], theirs[:2])
    assert tiny.far(ours[2], theirs[2]) > 1e-4


def test_a_swin_that_has_seen_a_small_picture_is_taken_as_it_was_built():
    made = cases.model("swin")
    want = cases.maps("swin", copy.deepcopy(made), images := torch.randn(1, 3, 80, 112))
    cases.maps("swin", made, torch.randn(1, 3, 48, 48))  # it forgets the last stage's shift
    with torch.no_grad():
        close(gn.backbone(made)(images), want)
    assert made.swin.encoder.layers[2].blocks[1].shift_size == 0  # the object stays as it is


@pytest.mark.parametrize("short", ["dinov2", "swin", "segformer"])
def test_a_bundle_on_such_a_trunk_is_loaded_again(short, tmp_path):
    made = cases.model(short)
    cases.saved(made, tmp_path / "model")
    trunk = gn.backbone(made)
    model = gn.adapt(trunk, gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3)}).eval()
    tiny.randomise_own(model)
    model.save(tmp_path / "given", dtype="float32")
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        want = model(images)["seg"]
        for more in ({"backbone": gn.backbone(made)}, {"weights": str(tmp_path / "model")}):
            assert torch.equal(gn.load(tmp_path / "given", **more)(images)["seg"], want)
        found = gn.backbone(made, str(tmp_path / "model"))  # says where they are found again
        again = gn.adapt(found, gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3)})
        again.save(tmp_path / "found")
        assert gn.load(tmp_path / "found").backbone.fingerprint() == trunk.fingerprint()


def in_the_hubs_cache(made, cache):
    """As ``from_pretrained`` would have left it: nothing is fetched."""
    repository = cache / "models--somebody--tiny"
    folder = repository / "snapshots" / ("0" * 40)
    cases.saved(made, folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return folder


@pytest.mark.parametrize("prefix", ["", "hf-hub:"])
def test_a_hub_id_is_a_name_and_weights_of_a_name(prefix, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    made = cases.model("vit")
    folder = in_the_hubs_cache(made, tmp_path)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.5, 0.5, 0.5]})
    )
    trunk = gn.backbone(f"{prefix}somebody/tiny")
    assert list(trunk.mean) == [0.4, 0.5, 0.6] and list(trunk.std) == [0.5, 0.5, 0.5]
    assert trunk.name == "vit_base_patch8_224"
    images = torch.randn(1, 3, 24, 56)
    with torch.no_grad():
        close(trunk(images), cases.maps("vit", made, images))
    again = gn.backbone(trunk.name, "somebody/tiny", options=trunk.options)
    assert again.fingerprint() == trunk.fingerprint()
    model = gn.adapt(trunk, gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3)})
    model.save(tmp_path / "bundle")
    loaded = gn.load(tmp_path / "bundle")  # the source is stored, and is still in the cache
    assert loaded.backbone.fingerprint() == trunk.fingerprint() and loaded.backbone.mean == trunk.mean
    (folder / "preprocessor_config.json").write_text(json.dumps({"rescale_factor": 1 / 127.5}))
    with pytest.raises(OptionError, match="rescale_factor"):
        gn.backbone(f"{prefix}somebody/tiny")


@pytest.mark.slow
@pytest.mark.export
@pytest.mark.parametrize("to", ["torch", "onnx"])
@pytest.mark.parametrize("short", ["vit", "dinov2_backbone", "dinov3", "swin", "segformer", "convnext"])
def test_a_graph_of_it_gives_what_it_gives(short, to, tmp_path):
    """Export compares its program with the model at sizes of its own, and refuses what differs."""
    if to == "onnx":
        pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
    model = gn.adapt(gn.backbone(cases.model(short)), gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3)}).eval()
    tiny.randomise_own(model)
    assert gn.export(model, tmp_path / "out", to=to).facts["image"]["dtype"] == "uint8"
