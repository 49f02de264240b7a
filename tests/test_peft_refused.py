"""Folders of PEFT's that are refused, what its format cannot express, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import garnish
import tiny
from garnish.cli import main
from garnish.errors import BundleError, OptionError
from garnish.model.model import Model
from peft_trunks import INSTALLED, adapted

pytestmark = pytest.mark.reference


def raised(kind: type[Exception], call) -> str:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_what_peft_cannot_express(tmp_path):
    def refused(model: Model, **options) -> str:
        return raised((BundleError, OptionError), lambda: garnish.export_peft(model, tmp_path / "a", **options))

    own = adapted("vit", garnish.LoRA(rank=2, per_task=True), tasks=("seg", "depth"))
    assert "2 owners (seg, depth)" in refused(own)
    garnish.export_peft(own, tmp_path / "depth", task="depth")
    assert list(garnish.import_peft(tmp_path / "depth", backbone=tiny.backbone("vit")).tasks) == ["depth"]
    assert "unknown task 'dpth'" in refused(own, task="dpth")
    assert "AdaptFormer" in refused(adapted("vit", garnish.AdaptFormer(bottleneck=8)))
    assert "AdaptFormer" in refused(adapted("vit", [garnish.LoRA(rank=2), garnish.AdaptFormer(bottleneck=8)]))
    assert "FullFineTuning" in refused(adapted("vit", garnish.FullFineTuning()))
    both = [garnish.LoRA(rank=2, layers=("qkv",)), garnish.LoRA(rank=2, layers=("fc1",), dora=True)]
    assert "LoRA beside DoRA" in refused(adapted("vit", both))
    plain = adapted("vit", garnish.LoRA(rank=2))
    assert "did you mean 'transformers4'" in refused(plain, dialect="transformer4")
    assert "no names in 'timm'" in refused(adapted("mit", garnish.LoRA(rank=2)))
    assert "no SegFormer" in refused(plain, dialect=INSTALLED, decode_head="seg")
    mit = adapted("mit", garnish.LoRA(rank=2))
    assert "another head than SegFormerHead" in refused(mit, dialect=INSTALLED, decode_head="seg")
    with pytest.warns(UserWarning, match="64 groups"):
        dora = adapted("mit", garnish.LoRA(rank=64, dora=True, layers=("stages.0.blocks.0.mlp.dw",)))
    assert "DoRA at a convolution of 64 groups" in refused(dora, dialect=INSTALLED)
    eva = tiny.model("dinov3", garnish.LoRA(rank=2), tasks=("seg",))
    assert "give dialect= (--dialect) timm" in refused(eva, dialect="transformers5")
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("peft") / "adapter"
    garnish.export_peft(adapted("vit", garnish.LoRA(rank=3)), folder)
    return folder


def copy_of(written: Path, folder: Path, *, ours: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for file in written.iterdir():
        if ours or file.name.startswith("adapter"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


CONFIGS = {
    "peft_type": ("IA3", "peft_type 'IA3'"),
    "bias": ("lora_only", "bias: 'lora_only'"),
    "init_lora_weights": ("pissa_niter_4", "rewrites the backbone"),
    "lora_bias": (True, "lora_bias: True is not supported"),
    "layer_replication": ([[0, 1]], "layer_replication"),
    "something_new": ({"a": 1}, "something_new"),
    "r": (4, "shape (3, 48), but adapter_config.json gives the module rank 4"),
    "lora_alpha": ("16", "lora_alpha: expected a number"),
    "lora_dropout": (1.5, "0 to below 1"),
    "rank_pattern": ({"(": 2}, "opens a group that is not closed"),
    "alpha_pattern": ({r"(?i)fc1": 2}, "holds (?i)fc1, which is not read"),
    "target_modules": (["qkv"], "is not among target_modules"),
    "exclude_modules": (["fc1"], "is not among target_modules"),
    "use_dora": (True, "has no lora_magnitude_vector"),
    "modules_to_save": ("head", "a list of names"),
    "use_rslora": ("yes", "true or false"),
}


@pytest.mark.parametrize("key", CONFIGS)
def test_configurations_that_are_refused(key, written, tmp_path):
    folder = copy_of(written, tmp_path)
    value, said = CONFIGS[key]
    config = json.loads((folder / "adapter_config.json").read_text()) | {key: value}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    task = {"seg": garnish.Semantic(classes=5)}
    assert said in raised(BundleError, lambda: garnish.import_peft(folder, backbone=tiny.backbone("vit"), tasks=task))


def test_damaged_and_strange_files_are_refused(written, tmp_path):
    trunk = tiny.backbone("vit")
    task = {"seg": garnish.Semantic(classes=5)}
    number = iter(range(100))

    def refused(change=None, *, ours=False, backbone=trunk, raw: bytes | None = None, config=None, **options) -> str:
        folder = copy_of(written, tmp_path / str(next(number)), ours=ours)
        said = json.loads((folder / "adapter_config.json").read_text()) | (config or {})
        (folder / "adapter_config.json").write_text(json.dumps(said))
        file = folder / "adapter_model.safetensors"
        if change is not None:
            tensors = load_file(file)
            change(tensors)
            save_file(tensors, file)
        if raw is not None:
            file.write_bytes(raw)
        return raised(
            (BundleError, OptionError),
            lambda: garnish.import_peft(folder, backbone=backbone, **({} if ours else {"tasks": task}), **options),
        )

    at = "base_model.model.blocks.1.attn.qkv."
    assert "has no lora_B" in refused(lambda t: t.pop(f"{at}lora_B.weight"))
    assert "nothing would use it" in refused(lambda t: t.update({f"{at}lora_E": torch.ones(3)}))
    assert "nothing would use it" in refused(lambda t: t.update({f"{at}base_layer.bias": torch.ones(3)}))
    assert "use_dora is false" in refused(lambda t: t.update({f"{at}lora_magnitude_vector": torch.ones(144)}))
    assert "takes (144, 3)" in refused(lambda t: t.update({f"{at}lora_B.weight": torch.ones(144, 4)}))
    assert "does not begin with base_model.model." in refused(lambda t: t.update({"x": torch.ones(1)}))

    def gone(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if n.startswith(at)]:
            del tensors[name]

    assert "has no tensors of blocks.1.attn.qkv" in refused(gone, ours=True)
    assert "holds no adapter" in refused(dict.clear)
    assert "is damaged" in refused(raw=b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    assert "pass tasks=" in raised(
        OptionError, lambda: garnish.import_peft(copy_of(written, tmp_path / "plain"), backbone=trunk)
    )
    assert "pass backbone=" in raised(OptionError, lambda: garnish.import_peft(tmp_path / "plain", tasks=task))
    assert "is a layer of swin" in refused(backbone=tiny.backbone("swin"))
    longer = {"img_size": 64, "embed_dim": 48, "depth": 5, "num_heads": 3}
    fewer = garnish.backbone("vit_tiny_patch16_224", options={**longer, "depth": 4})
    folder = tmp_path / "longer"
    deep = garnish.backbone("vit_tiny_patch16_224", options=longer)
    garnish.export_peft(garnish.adapt(deep, garnish.LoRA(rank=2), task), folder)
    for name in ("task.json", "heads.safetensors"):
        (folder / name).unlink()
    message = raised(BundleError, lambda: garnish.import_peft(folder, backbone=fewer, tasks=task))
    assert " (4 such) is no layer of vit_tiny" in message

    depthwise = "stages.0.blocks.0.mlp.dwconv.dwconv"

    def grouped(tensors: dict[str, Tensor], rank: int = 64) -> None:
        tensors.clear()
        tensors[f"base_model.model.{depthwise}.lora_A.weight"] = torch.ones(rank, 64, 3, 3)
        tensors[f"base_model.model.{depthwise}.lora_B.weight"] = torch.ones(64, 1, 1, 1)

    mit, words = tiny.backbone("mit"), {"target_modules": ["dwconv"], "r": 64}
    assert "reads the channels of all groups" in refused(grouped, backbone=mit, config=words)
    assert "not a multiple of the convolution's 64" in refused(
        lambda t: grouped(t, 3), backbone=mit, config=words | {"r": 3}
    )

    pickled = copy_of(written, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "is pickled" in raised(BundleError, lambda: garnish.import_peft(pickled, backbone=trunk, tasks=task))
    assert "no such folder" in raised(BundleError, lambda: garnish.import_peft(tmp_path / "none"))
    copy_of(written, tmp_path / "plain" / "one")
    (tmp_path / "two").mkdir()
    for name in "ab":
        copy_of(written, tmp_path / "two" / name)
    assert "2 adapters (a, b)" in raised(BundleError, lambda: garnish.import_peft(tmp_path / "two", backbone=trunk))

    def facts(change) -> str:
        folder = copy_of(written, tmp_path / str(next(number)), ours=True)
        found = json.loads((folder / "task.json").read_text())
        change(found)
        (folder / "task.json").write_text(json.dumps(found))
        return raised(BundleError, lambda: garnish.import_peft(folder, backbone=trunk))

    assert "decode_head: 'x' is none of the tasks" in facts(lambda f: f.update(decode_head="x"))
    assert "not of format 1" in facts(lambda f: f.update(format=2))
    assert "backbone must have" in facts(lambda f: f["backbone"].pop("fingerprint"))
    assert "unknown task 'Semntic'" in facts(lambda f: f["tasks"]["seg"].update(name="Semntic"))
    assert "tasks.seg must have name, options, head" in facts(lambda f: f["tasks"]["seg"].pop("head"))
    assert "do not fit their description" in facts(lambda f: f["tasks"]["seg"]["options"].update(classes=6))


# ---- the command line ------------------------------------------------------------------------------------------------


def test_export_and_import_on_the_command_line(tmp_path, capsys):
    model = garnish.adapt(
        garnish.backbone("garnish_b0"),
        garnish.LoRA(rank=2),
        {"seg": garnish.Semantic(classes=5), "depth": garnish.Depth(max_metres=8.0)},
        garnish.SegFormerHead(channels=8),
    )
    tiny.randomise_own(model)
    model.save(tmp_path / "bundle", dtype="float32")
    bundle, out, back = (str(tmp_path / n) for n in ("bundle", "adapter", "back"))
    words = ["--dialect", "transformers4", "--decode-head", "seg", "--json"]
    assert main(["peft", "export", bundle, "--out", out, *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tasks"] == ["seg", "depth"] and "adapter_config.json" in said["files"]
    assert main(["peft", "import", out, "--out", back]) == 0
    assert "seg, depth" in capsys.readouterr().out
    wanted, got = garnish.load(bundle).own_tensors(), garnish.load(back).own_tensors()
    assert wanted.keys() == got.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, atol=0, rtol=0)

    for name in ("task.json", "heads.safetensors"):
        (tmp_path / "adapter" / name).unlink()
    there = ["--out", str(tmp_path / "other"), "--backbone", "garnish_b0"]
    mine = ["--tasks", "mine=Semantic", "--tasks.mine.classes", "5"]
    assert main(["peft", "import", out, *there, *mine]) == 0
    assert garnish.load(tmp_path / "other").decoders.options["mine"] == garnish.SegFormerHead(channels=8)
    capsys.readouterr()
    for words, text in (
        (["import", out, *there], "pass tasks="),
        (["import", out, "--out", back, "--backbone", "mit_b0", *mine], "without weights is random"),
        (["import", out, *there, "--dialect", "timm"], "--dialect does not apply to import"),
        (["export", bundle, "--out", back, "--backbone", "mit_b0"], "--backbone does not apply to export"),
        (["export", bundle, "--out", f"{out}-2", "--dialect", "timm"], "--dialect) transformers4 or transformers5"),
    ):
        assert main(["peft", *words]) == 2
        message = capsys.readouterr().err
        assert text in message and message.count("\n") == 1
