"""Ids of the Hub as names, in a cache that the tests write: no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

import garnish as gn
from garnish import registry
from garnish.backbones.transformers.transformers_model import Architecture
from garnish.backbones.weights import read_weights
from garnish.bundles.bundle_json import as_bundle_facts, read_bundle_json
from garnish.cli import main
from garnish.errors import BundleError, GarnishError, OptionError
from garnish.recipes.recipe import read_recipe

VIT, SMALL = "vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
CONFIG = {
    "architecture": VIT,
    "num_classes": 5,
    "num_features": 48,
    "global_pool": "token",
    "model_args": SMALL | {"num_classes": 5},
    "pretrained_cfg": {"tag": "mine", "mean": [0.4, 0.5, 0.6], "std": [0.5, 0.5, 0.5], "license": "cc-by-nc-4.0"},
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Writes a repository into a cache as huggingface_hub has it, and that is all that can be reached."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def write(hub_id: str, config: Any, model: torch.nn.Module | None = None, **texts: str) -> Path:
        folder = cache / f"models--{hub_id.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        files = folder / "snapshots" / ("0" * 40)
        files.mkdir(parents=True)
        if config is not None:
            (files / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        if model is not None:
            save_file(model.state_dict(), files / "model.safetensors")
        for name, text in texts.items():
            (files / f"{name}.json").write_text(text)
        return files

    return write


def refused(name: str, **given: Any) -> str:
    with pytest.raises(GarnishError) as caught:
        gn.backbone(name, **given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:", ""])
def test_a_repository_of_timms(hub, prefix):
    model = timm.create_model(VIT, **SMALL, num_classes=5).eval()
    files = hub("me/tiny", CONFIG, model)
    trunk = gn.backbone(f"{prefix}me/tiny")
    assert (trunk.name, trunk.weights_source) == (VIT, "hf-hub:me/tiny") and trunk.licence == "cc-by-nc-4.0"
    assert trunk.options == {**SMALL, "mean": [0.4, 0.5, 0.6]} and trunk.mean == (0.4, 0.5, 0.6)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs = model.forward_intermediates(x, intermediates_only=True)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(trunk(x), theirs, strict=True))
    assert gn.backbone(f"{prefix}me/tiny", True).fingerprint() == trunk.fingerprint()
    assert gn.backbone(f"{prefix}me/tiny", False).weights_source == "random"
    file = str(files / "model.safetensors")
    assert gn.backbone(f"{prefix}me/tiny", file).weights_source == file
    (files / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert read_weights("hf-hub:me/tiny")[1] == "apache-2.0"


def test_a_bundle_names_the_architecture(hub, tmp_path):
    hub("me/tiny", CONFIG, timm.create_model(VIT, **SMALL))
    made = gn.adapt(gn.backbone("hf-hub:me/tiny"), gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10.0)}).eval()
    made.save(tmp_path / "bundle")
    facts = read_bundle_json(tmp_path / "bundle")
    assert facts["backbone"]["name"] == VIT and facts["backbone"]["weights_source"] == "hf-hub:me/tiny"
    assert facts["backbone"]["non_commercial"]
    x = torch.rand(1, 3, 48, 80)
    assert gn.load(tmp_path / "bundle")(x)["depth"].shape == (1, 1, 48, 80)
    facts["backbone"]["name"] = "hf-hub:me/tiny"
    with pytest.raises(BundleError, match="'hf-hub:me/tiny' is not the name of an architecture"):
        as_bundle_facts(facts, "bundle.json")


def test_what_a_strangers_configuration_cannot_do(hub):
    args = {"checkpoint_path": "/etc/passwd"}
    hub("a/path", {"architecture": VIT, "model_args": args})
    with pytest.raises(OptionError, match="unknown option 'checkpoint_path'"):
        gn.backbone("a/path")
    hub("a/wide", {"architecture": VIT, "model_args": {"embed_dim": 10**9}})
    assert "embed_dim" in refused("a/wide")
    hub("a/grey", {"architecture": VIT, "model_args": {"in_chans": 1}})
    assert "hf-hub:a/grey: it takes 1 bands" in refused("a/grey")
    hub("a/mean", {"architecture": VIT, "pretrained_cfg": {"mean": "0.5"}})
    assert "mean" in refused("a/mean")
    hub("a/std", {"architecture": VIT, "pretrained_cfg": {"std": [0.0, 0.5, 0.5]}})
    assert "std" in refused("a/std")
    hub("a/name", {"architecture": "no_such_model"})
    assert "names 'no_such_model', which timm does not have" in refused("a/name")
    hub("a/other", {"architecture": "mixer_s32_224"})
    assert "unknown backbone 'mixer_s32_224'" in refused("a/other")
    hub("a/list", {"architecture": VIT, "model_args": [1]})
    assert "are no mapping" in refused("a/list")
    for number, text in enumerate(("[1]", "{", '{"a": 1, "a": 2}', "[" * 100_000)):
        hub(f"a/text{number}", text)
        assert "config.json: is" in refused(f"a/text{number}")
    hub("a/nothing", {})
    assert "has neither architecture nor model_type" in refused("a/nothing")


def test_what_is_no_id():
    for name in ("hf-hub:", "hf-hub:one", "hf-hub:a/b/c", "local-dir:/tmp/model"):
        assert "is no Hub id hf-hub:owner/name" in refused(name)
    assert "not in the Hub's local cache, and HF_HUB_OFFLINE is set" in refused("hf-hub:no-such/thing")
    for name in ("../there", "/etc/passwd", "./me/tiny"):
        assert "give the architecture as the name" in refused(name)


def test_a_repository_of_transformers_is_asked_of_its_architecture(hub, monkeypatch):
    class Small:
        model_type: ClassVar[str] = "small"
        family: ClassVar[str] = "ViT"

        @classmethod
        def architecture(cls, config: Any, where: str) -> Architecture:
            return Architecture(VIT, SMALL | {"depth": config["num_hidden_layers"]})

        @classmethod
        def tensors(cls, held: Any) -> None:
            return None  # they are named as timm names them

    known = registry.classes
    monkeypatch.setattr(registry, "classes", lambda kind: {"Small": Small} if kind == "transformers" else known(kind))
    pictures = json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]})
    model = timm.create_model(VIT, **SMALL | {"depth": 5})
    hub("some/small", {"model_type": "small", "num_hidden_layers": 5}, model, preprocessor_config=pictures)
    trunk = gn.backbone("some/small")
    assert trunk.options == SMALL | {"depth": 5, "mean": [0.1, 0.2, 0.3]}
    hub("some/odd", {"model_type": "odd"})
    assert "has the model_type 'odd'; known of transformers: small" in refused("some/odd")


def test_the_command_line_takes_ids_and_the_file_of_a_given_model(hub, tmp_path, capsys):
    hub("me/tiny", CONFIG, timm.create_model(VIT, **SMALL))
    assert main(["info", "hf-hub:me/tiny"]) == 0
    told = capsys.readouterr().out
    assert "hf-hub:me/tiny" in told and "non-commercial" in told
    assert main(["info", "me/tiny"]) == 2  # a bundle's path
    assert "no such bundle" in capsys.readouterr().err


def test_a_recipe_takes_an_id(hub):
    hub("me/tiny", CONFIG, timm.create_model(VIT, **SMALL))
    choice = read_recipe(None, {"backbone": "hf-hub:me/tiny", "adapter": "Frozen"}).backbone
    assert choice.build().weights_source == "hf-hub:me/tiny"
    assert choice.build_random(0).weights_source == "random"
