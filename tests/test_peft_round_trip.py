"""A folder of PEFT's that adapts queries and values alone: it comes back as it was, and what differs here is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import garnish as gn
from garnish.errors import BundleError, OptionError, SiteError

SMALL = {"img_size": 32, "embed_dim": 48, "depth": 4, "num_heads": 3}
NAME = "vit_tiny_patch16_224"
TASKS = {"depth": gn.Depth()}


def trunk() -> Any:
    torch.manual_seed(0)
    return gn.backbone(NAME, options=SMALL)


def of_peft(folder: Path, *, trained: bool) -> dict[str, torch.Tensor]:
    """As PEFT writes it for transformers 5: q and v of four blocks, rank 8, B zero before training."""
    draw, tensors = torch.Generator().manual_seed(1), {}
    for block in range(4):
        for part in ("q_proj", "v_proj"):
            at = f"base_model.model.layers.{block}.attention.{part}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(8, 48, generator=draw)
            tensors[f"{at}.lora_B.weight"] = torch.randn(48, 8, generator=draw) * trained
    folder.mkdir()
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    facts = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    return tensors


@pytest.mark.parametrize("trained", [False, True])
def test_queries_and_values_come_back_alone(trained, tmp_path):
    tensors = of_peft(tmp_path / "theirs", trained=trained)
    with pytest.warns(UserWarning, match="2 of 3 parts .* rank 16, zero at the others"):
        model = gn.import_peft(tmp_path / "theirs", backbone=trunk(), tasks=TASKS)
    gn.export_peft(model, tmp_path / "out", dialect="transformers5")
    again = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (8, 16, {}, {})
    if trained:  # a bundle remembers nothing but the tensors
        model.save(tmp_path / "bundle", dtype="float32")
        gn.export_peft(gn.load(tmp_path / "bundle", backbone=trunk()), tmp_path / "third", dialect="transformers5")
        assert load_file(tmp_path / "third" / "adapter_model.safetensors").keys() == tensors.keys()


def test_what_training_has_filled_is_written(tmp_path):
    of_peft(tmp_path / "theirs", trained=True)
    with pytest.warns(UserWarning, match="zero at the others"):
        model = gn.import_peft(tmp_path / "theirs", backbone=trunk(), tasks=TASKS)
    with torch.no_grad():
        for tensor in model.trained_parameters().values():
            tensor.add_(0.01)
    gn.export_peft(model, tmp_path / "out", dialect="transformers5")
    again = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert again["base_model.model.layers.0.attention.k_proj.lora_A.weight"].shape == (16, 48)


def test_an_adapter_goes_back_to_the_names_of_the_object_it_was_made_on(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=32, hidden_size=48, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96)
    held = ViTForImageClassification(config)
    model = gn.adapt(held, gn.LoRA(rank=2, layers=("qkv",)), TASKS)
    gn.export_peft(model, tmp_path / "out")
    names = {name for name, _ in held.named_modules()}
    for key in load_file(tmp_path / "out" / "adapter_model.safetensors"):
        assert key.removeprefix("base_model.model.").rpartition(".lora_")[0] in names, key
    gn.export_peft(model, tmp_path / "timm", dialect="timm")
    assert any("blocks.0.attn.qkv" in key for key in load_file(tmp_path / "timm" / "adapter_model.safetensors"))
    gn.export_peft(gn.adapt(trunk(), gn.LoRA(rank=2), TASKS), tmp_path / "usual")
    assert any("blocks.0.attn.qkv" in key for key in load_file(tmp_path / "usual" / "adapter_model.safetensors"))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (("q_proj", "v_proj"), r"layers=\('qkv',\)"),
        (("encoder.layer.0.attention.attention.query",), r"layers=\('qkv',\)"),
        (("all-linear",), "leave layers out"),
        (("blocks.3.attn.qkv",), "it is 'stages.3.blocks.0.attn.qkv' here"),
        (("o_proj",), "it is 'attn.proj' here"),
    ],
)
def test_names_of_layers_that_others_have(layers, words):
    with pytest.raises(SiteError, match=words):
        gn.adapt(trunk(), gn.LoRA(rank=2, layers=layers), TASKS)


def test_words_of_peft_and_timm_are_answered(tmp_path):
    for given, words in (({"r": 8, "lora_alpha": 16}, "rank="), ({"target_modules": ["qkv"]}, "layers=")):
        with pytest.raises(OptionError, match=words):
            gn.LoRA(**given)
    with pytest.raises(OptionError, match=r"give \('qkv',\)"):
        gn.LoRA(layers="qkv")
    with pytest.raises(OptionError, match="bands="):
        gn.backbone(NAME, in_chans=4)
    model = gn.adapt(trunk(), gn.LoRA(rank=2), TASKS)
    for name, words in (("print_trainable_parameters", "model.report"), ("merge_and_unload", "gn.merge")):
        with pytest.raises(AttributeError, match=words):
            getattr(model, name)
    gn.export_peft(model, tmp_path / "adapter")
    for read in (gn.load, model.load):
        with pytest.raises(BundleError, match=r"gn\.import_peft"):
            read(tmp_path / "adapter")
    assert list(gn.import_peft(tmp_path / "adapter", backbone=trunk()).tasks) == ["depth"]


def test_a_decode_head_has_its_trunks_name_beside_it(tmp_path):
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), TASKS, gn.SegFormerHead(channels=16))
    with pytest.raises(OptionError, match="'segformer', not prefix='encoder'"):
        gn.export_peft(model, tmp_path / "a", dialect="transformers5", decode_head="depth", prefix="encoder")


def test_a_model_of_timms_is_a_backbone_to_load_with(tmp_path):
    torch.manual_seed(2)
    held = timm.create_model(NAME, **SMALL)
    gn.adapt(held, gn.LoRA(rank=2), TASKS).save(tmp_path / "bundle")
    assert list(gn.load(tmp_path / "bundle", backbone=held).tasks) == ["depth"]
    message = ""
    try:
        gn.load(tmp_path / "bundle", weights="lost.safetensors")
    except BundleError as error:
        message = str(error)
    assert "or a Hub id owner/name); give the file it was trained on" in message and "pass weights=" not in message
