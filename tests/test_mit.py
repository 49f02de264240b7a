"""MiT against transformers' SegFormer, its checkpoint dialects and sizes; reading weights in general.

Truths: transformers' model on the same weights; the parameter counts published for B0 to B5; names written by hand.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from garnish.backbones.mit import NVIDIA_LICENCE, MiT
from garnish.backbones.segformer import dialects
from garnish.backbones.weights import is_non_commercial, read_weights
from garnish.errors import GarnishError, OptionError, WeightsError

TINY = {"embed_dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 4)}


def tiny(weights: str | None = None, **options) -> MiT:
    return MiT.create("mit_b0", weights, {**TINY, **options}).eval()


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Every parameter away from its start, norms included, at a scale that keeps the stream near 1."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(noise * 0.2 + (parameter == 1).float().round())


def transformers_config(options: dict):
    from transformers import SegformerConfig

    return SegformerConfig(
        hidden_sizes=list(options["embed_dims"]),
        depths=list(options["depths"]),
        num_attention_heads=list(options["num_heads"]),
    )


def transformers_model(options: dict = TINY):
    from transformers import SegformerModel

    model = SegformerModel(transformers_config(options)).eval()
    randomise(model)
    return model


def assert_same_maps(ours: MiT, theirs: nn.Module, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = ours(images)
        expected = theirs(images, output_hidden_states=True).hidden_states
    assert len(got) == len(expected) == 4
    for mine, their in zip(got, expected, strict=True):
        assert mine.shape == their.shape
        assert their.std() > 0.1
        torch.testing.assert_close(mine, their, atol=1e-4, rtol=0)


# ---- numbers ---------------------------------------------------------------------------------------------------------

B0 = {"embed_dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2), "num_heads": (1, 2, 5, 8)}
B2 = {"embed_dims": (64, 128, 320, 512), "depths": (3, 4, 6, 3), "num_heads": (1, 2, 5, 8)}


@pytest.mark.reference
@pytest.mark.parametrize(("name", "options"), [("mit_b0", B0), ("mit_b2", B2)])
def test_equals_transformers(name, options, tmp_path):
    theirs = transformers_model(options)
    file = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), file)
    ours = MiT.create(name, str(file), {}).eval()
    assert_same_maps(ours, theirs, (64, 96))


@pytest.mark.reference
@pytest.mark.parametrize("size", [(97, 131), (65, 70)])
def test_odd_sizes_equal_transformers(size, tmp_path):
    theirs = transformers_model()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    assert_same_maps(tiny(str(tmp_path)), theirs, size)


@pytest.mark.reference
def test_our_weights_run_in_transformers_5():
    ours = tiny(norm_eps=1e-5)
    randomise(ours)
    theirs = transformers_model()
    theirs.load_state_dict(dialects.write(ours.frozen_tensors(), "transformers5", prefix=""), strict=True)
    assert_same_maps(ours, theirs, (64, 64))


@pytest.mark.reference
def test_names_of_transformers_4_are_those_on_disk(tmp_path):
    """transformers 5 converts the names of 4.57 when it loads a file: its converter is the witness."""
    from transformers import SegformerModel

    ours = tiny(norm_eps=1e-5)
    randomise(ours)
    transformers_config(TINY).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(dialects.write(ours.frozen_tensors(), "transformers4", prefix=""), file, metadata={"format": "pt"})
    theirs, info = SegformerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_same_maps(ours, theirs.eval(), (64, 64))
    assert_same_maps(tiny(str(file)), theirs, (64, 64))


@pytest.mark.reference
def test_whole_segmentation_model_as_saved_by_transformers(tmp_path):
    from transformers import SegformerForSemanticSegmentation

    whole = SegformerForSemanticSegmentation(transformers_config(TINY)).eval()
    randomise(whole)
    whole.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert any(n.startswith("decode_head.") for n in names)
    assert_same_maps(tiny(str(tmp_path)), whole.segformer, (64, 64))
    save_file(whole.state_dict(), tmp_path / "model.safetensors")  # the names in memory
    assert_same_maps(tiny(str(tmp_path)), whole.segformer, (64, 64))


# ---- dialects --------------------------------------------------------------------------------------------------------

NVLABS_FIRST_BLOCK = {
    "patch_embed1.proj": (8, 3, 7, 7),
    "patch_embed1.norm": (8,),
    "block1.0.norm1": (8,),
    "block1.0.attn.q": (8, 8),
    "block1.0.attn.kv": (16, 8),
    "block1.0.attn.sr": (8, 8, 8, 8),
    "block1.0.attn.norm": (8,),
    "block1.0.attn.proj": (8, 8),
    "block1.0.norm2": (8,),
    "block1.0.mlp.fc1": (32, 8),
    "block1.0.mlp.dwconv.dwconv": (32, 1, 3, 3),
    "block1.0.mlp.fc2": (8, 32),
    "norm1": (8,),
}


def test_nvlabs_names_by_hand():
    written = dialects.write(tiny().frozen_tensors(), "nvlabs", prefix="")
    first = {n: t for n, t in written.items() if re.match(r"(patch_embed|block|norm)1\.", n)}
    expected = {f"{n}.weight": s for n, s in NVLABS_FIRST_BLOCK.items()}
    assert {n: tuple(t.shape) for n, t in first.items() if n.endswith("weight")} == expected
    assert {n for n in first if n.endswith("bias")} == {n.replace("weight", "bias") for n in expected}
    assert "block2.1.attn.kv.bias" in written
    assert not any(n.startswith("block4") and ".sr" in n for n in written)


def test_keys_and_values_are_stacked_in_that_order():
    ours = tiny()
    randomise(ours)
    kv = ours.frozen_tensors()["stages.1.blocks.0.attn.kv.weight"]
    written = dialects.write(ours.frozen_tensors(), "transformers4")
    at = "segformer.encoder.block.1.0.attention.self."
    torch.testing.assert_close(written[at + "key.weight"], kv[:16])
    torch.testing.assert_close(written[at + "value.weight"], kv[16:])


@pytest.mark.parametrize("dialect", list(dialects.ENCODER_DIALECTS))
@pytest.mark.parametrize("prefix", [None, "", "module.backbone."])
def test_round_trip(dialect, prefix, tmp_path):
    ours = tiny()
    randomise(ours)
    file = tmp_path / "encoder.safetensors"
    written = dialects.write(ours.frozen_tensors(), dialect, prefix=prefix)
    assert dialects.encoder_dialect(written, "")[0].name == dialect
    save_file(written, file)
    with pytest.warns(UserWarning, match="module") if prefix == "module.backbone." else contextlib.nullcontext():
        again = tiny(str(file))
    assert again.fingerprint() == ours.fingerprint()
    assert again.fingerprint() != tiny().fingerprint()
    assert again.weights_source == str(file)


def test_checkpoint_of_a_training_run(tmp_path):
    ours = tiny()
    randomise(ours)
    tensors = dialects.write(ours.frozen_tensors(), "nvlabs")
    tensors["decode_head.linear_c1.proj.weight"] = torch.zeros(3)
    torch.save({"meta": {"epoch": 1}, "state_dict": tensors}, tmp_path / "iter_1.pth")
    assert tiny(str(tmp_path / "iter_1.pth")).fingerprint() == ours.fingerprint()


@pytest.mark.parametrize(
    ("dialect", "block", "embed"),
    [("garnish", 1e-6, 1e-6), ("nvlabs", 1e-6, 1e-5), ("transformers4", 1e-5, 1e-5), ("transformers5", 1e-5, 1e-5)],
)
def test_epsilon_belongs_to_the_dialect(dialect, block, embed, tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(dialects.write(tiny().frozen_tensors(), dialect), file)

    def epsilons(backbone: MiT) -> dict[str, set[float]]:
        found: dict[str, set[float]] = {"embed": set(), "block": set()}
        for site, module in backbone.sites_with_modules():
            if site.kind == "norm":
                inner = site.place == "enter" or site.role == "sr_norm"
                found["embed" if inner else "block"].add(module.eps)
        return found

    loaded = tiny(str(file))
    assert epsilons(loaded) == {"embed": {embed}, "block": {block}}
    # written in our own names and rebuilt from its options, it still computes the same
    save_file(loaded.frozen_tensors(), file)
    assert epsilons(MiT.create("mit_b0", str(file), loaded.options)) == epsilons(loaded)
    assert epsilons(tiny(str(file), norm_eps=1e-3)) == {"embed": {1e-3}, "block": {1e-3}}


def test_source_names_are_nvlabs():
    ours = tiny()
    assert set(ours.source_names) == set(ours.frozen_tensors())
    assert ours.source_names["stages.1.blocks.1.mlp.dw.bias"] == "block2.1.mlp.dwconv.dwconv.bias"


def test_every_tensor_is_wanted_and_none_more(tmp_path):
    written = dialects.write(tiny().frozen_tensors(), "nvlabs", prefix="")
    file = tmp_path / "w.safetensors"

    def refused(tensors: dict, match: str) -> None:
        save_file(tensors, file)
        with pytest.raises(WeightsError, match=match) as caught:
            tiny(str(file))
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)

    less = {n: t for n, t in written.items() if n not in ("norm4.bias", "block1.0.attn.q.weight")}
    refused(less, r"2 missing: block1\.0\.attn\.q\.weight, norm4\.bias")
    refused({**written, "block1.0.attn.lora": torch.zeros(1)}, r"1 unexpected: block1\.0\.attn\.lora")
    refused({**written, "norm4.bias": torch.zeros(7)}, r"1 tensors of another shape: .*\(7,\), not \(32,\)")
    refused({"conv1.weight": torch.zeros(1)}, r"no MiT encoder in any known dialect")
    bigger = MiT.create("mit_b0", None, {**TINY, "depths": (1, 2, 1, 2)})
    refused(dialects.write(bigger.frozen_tensors(), "nvlabs"), "16 unexpected: .*another size")


def test_unknown_dialect_is_named():
    with pytest.raises(OptionError, match="did you mean 'nvlabs'"):
        dialects.write({}, "nvlab")


# ---- architecture ----------------------------------------------------------------------------------------------------

PUBLISHED_M = {"mit_b0": 3.32, "mit_b1": 13.15, "mit_b2": 24.20, "mit_b3": 44.07, "mit_b4": 60.84, "mit_b5": 81.44}


@pytest.mark.parametrize("name", list(PUBLISHED_M))
def test_parameter_counts(name):
    with torch.device("meta"):
        backbone = MiT.create(name, None, {})
    count = sum(t.numel() for t in backbone.frozen_tensors().values())
    assert count == sum(p.numel() for p in backbone.parameters())
    assert round(count / 1e6, 2) == PUBLISHED_M[name]


def test_sites_and_features():
    backbone = tiny()
    sites = {s.name: s for s in backbone.sites()}
    at = "stages.1.blocks.1."
    layers = {n.removeprefix(at) for n, s in sites.items() if n.startswith(at) and s.kind in ("layer", "norm")}
    assert layers == {
        *("attn.norm", "attn.q", "attn.kv", "attn.sr", "attn.sr_norm", "attn.proj"),
        *("mlp.norm", "mlp.fc1", "mlp.dw", "mlp.fc2"),
    }
    assert "stages.3.blocks.0.attn.sr" not in sites
    assert {sites[n].kind for n in ("stages.0.enter.norm", "stages.0.leave")} == {"norm"}
    assert [(f.channels, f.stride) for f in backbone.features] == [(8, 4), (16, 8), (24, 16), (32, 32)]
    assert backbone.multiple == 32
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 8, 16, 24), (1, 16, 8, 12), (1, 24, 4, 6), (1, 32, 2, 3)]


def test_drop_path_grows_to_its_rate():
    backbone = MiT.create("mit_b0", None, {**TINY, "drop_path": 0.4})
    rates = [
        getattr(block["mlp"].branch.drop_path, "drop_prob", 0.0)
        for block in itertools.chain.from_iterable(stage.blocks for stage in backbone.stages)
    ]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    images = torch.randn(2, 3, 32, 32)
    backbone.eval()
    torch.testing.assert_close(backbone(images)[3], backbone(images)[3], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"depth": (1, 1, 1, 1)}, r"mit_b0: unknown option 'depth'; did you mean 'depths'\? available: .*sr_ratios"),
        ({"depths": (1, 1)}, r"mit_b0\.depths: expected 4 positive integers"),
        ({"depths": "2"}, r"mit_b0\.depths: expected 4"),
        ({"drop_path": 1.0}, r"mit_b0\.drop_path: expected a number from 0 to below 1, got 1\.0"),
        ({"mlp_ratio": "4"}, r"mit_b0\.mlp_ratio: expected a number"),
        ({"norm_eps": 0}, r"mit_b0\.norm_eps: expected a number above 0 to 1 or null, got 0"),
        ({"num_heads": (1, 2, 5, 7)}, r"embed_dims 256 is not a multiple of its num_heads 7"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(OptionError, match=match):
        MiT.create("mit_b0", None, options)


@pytest.mark.compile
def test_compiles_to_one_graph():
    backbone = tiny()
    images = torch.randn(1, 3, 64, 64)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(backbone, backend="eager", fullgraph=True)
        for mine, expected in zip(compiled(images), backbone(images), strict=True):
            torch.testing.assert_close(mine, expected)


@pytest.mark.export
def test_exports():
    backbone = tiny()
    images = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(backbone, (images,))
    with torch.no_grad():
        for mine, expected in zip(exported.module()(images), backbone(images), strict=True):
            torch.testing.assert_close(mine, expected)


# ---- reading weights -------------------------------------------------------------------------------------------------


class Arbitrary:
    """Something no weights file should hold."""


def raised(source: object) -> str:
    with pytest.raises(GarnishError) as caught:
        read_weights(str(source))
    assert type(caught.value) is WeightsError
    assert "\n" not in str(caught.value) and str(source) in str(caught.value)
    return str(caught.value)


def test_damaged_and_missing_files(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file({"a": torch.zeros(100)}, whole)
    for suffix, length in ((".safetensors", 200), (".safetensors", 0), (".pth", 200), (".pth", 0)):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(whole.read_bytes()[:length])
        message = raised(cut)
        assert "cannot be read" in message or "is damaged" in message
    torch.save({"a": torch.zeros(1000)}, whole.with_suffix(".pth"))
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole.with_suffix(".pth").read_bytes()[:2000])
    assert "cannot be read" in raised(cut)
    assert "no such weights file" in raised(tmp_path / "absent.pth")
    assert "no such weights file" in raised("absent.safetensors")
    assert "weights must be" in raised(Path(__file__))
    (tmp_path / "empty").mkdir()
    assert "in this folder" in raised(tmp_path / "empty")
    (tmp_path / "two").mkdir()
    for name in "ab":
        save_file({"a": torch.zeros(1)}, tmp_path / "two" / f"{name}.safetensors")
    assert "name the one to read" in raised(tmp_path / "two")


def test_only_tensors_are_read(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Arbitrary()}, file)
    assert "objects other than tensors" in raised(file)
    torch.save({"a": torch.zeros(1), "epoch": 3}, file)
    assert "1 of 2 entries are not named tensors (first: 'epoch', int)" in raised(file)
    torch.save([torch.zeros(1)], file)
    assert "holds list" in raised(file)
    torch.save({"epoch": 3, "teacher": {"state_dict": {"a": torch.ones(2)}}}, file)
    tensors, licence = read_weights(str(file))
    assert licence is None
    torch.testing.assert_close(tensors, {"a": torch.ones(2)})


def test_half_precision_is_widened(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.full((2,), 0.1, dtype=torch.float16), "n": torch.tensor(3)}, file)
    tensors, _ = read_weights(str(file))
    assert tensors["a"].dtype == torch.float32 and tensors["n"].dtype == torch.int64
    torch.testing.assert_close(tensors["a"], torch.full((2,), 0.1), atol=1e-4, rtol=0)


def test_licence_is_found(tmp_path):
    file, readme = tmp_path / "w.safetensors", tmp_path / "README.md"
    save_file({"a": torch.zeros(1)}, file)

    def licence() -> str | None:
        return read_weights(str(tmp_path))[1]

    assert licence() is None
    for text, expected in [
        (
            "# Card\n\nLicence: upstream says 'under the Apache-2.0 license' (the copy's own code is GPL-3.0)\n",
            "Apache-2.0",
        ),
        ("---\nlicense: mit\n---\n", "mit"),
        ("License: weights CC BY-NC 4.0, code Apache-2.0", "weights CC BY-NC 4.0, code Apache-2.0"),
        ("license: other\nlicense_name: some-model-license\n", "some-model-license"),
        ("Licence: we permit, " + "x" * 300, "we permit, " + "x" * 189),
        ("nothing", None),
    ]:
        readme.write_text(text)
        assert licence() == expected
    save_file({"a": torch.zeros(1)}, file, metadata={"license": "BSD-3-Clause"})
    assert licence() == "BSD-3-Clause"


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("cc-by-nc-4.0", True),
        ("CC BY-NC-SA 4.0", True),
        ("for research purposes only", True),
        ("Research use only", True),
        ("noncommercial", True),
        (NVIDIA_LICENCE, True),
        ("Apache-2.0", False),
        ("MIT, Example Inc.", False),
        ("none (random weights)", False),
        ("dinov3-license", False),
    ],
)
def test_non_commercial(licence, expected):
    assert is_non_commercial(licence) is expected


def test_hub(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    ours = tiny()
    randomise(ours)
    held = ["README.md", "config.json", "pytorch_model.bin", "tf_model.h5"]
    torch.save(dialects.write(ours.frozen_tensors(), "transformers4"), tmp_path / "pytorch_model.bin")
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    asked = []

    def info(self, hub_id: str, timeout: float):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in held])

    def download(hub_id: str, name: str) -> str:
        asked.append((hub_id, name))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda hub_id, name: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    published = MiT.create("mit_b0", True, TINY)
    assert asked == [("nvidia/mit-b0", name) for name in ("README.md", "config.json", "pytorch_model.bin")]
    assert published.fingerprint() == ours.fingerprint()
    assert published.licence == NVIDIA_LICENCE and published.weights_source == "nvidia/mit-b0"
    assert MiT.create("mit_b0", "someone/copy", TINY).licence == "cc-by-nc-4.0"
    (tmp_path / "README.md").unlink()
    assert is_non_commercial(MiT.create("mit_b0", str(tmp_path), TINY).licence)  # unknown, and says what is likely
    assert tiny().licence == "none (random weights)"
    held[:] = ["README.md"]
    assert "holds none of model.safetensors" in raised("someone/notes")

    def raising(error: Exception):
        def info(self, hub_id: str, timeout: float):
            raise error

        return info

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", raising(OSError("no\nnetwork")))
    assert "the Hub cannot be reached (no network)" in raised("nvidia/mit-b0")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", raising(OfflineModeIsEnabled("off")))
    assert "HF_HUB_OFFLINE is set" in raised("nvidia/mit-b0")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda hub_id, name: str(tmp_path / name))
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read"):
        read_weights("nvidia/mit-b0")
