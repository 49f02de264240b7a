"""PEFT folders of strangers: what is damaged, huge or odd is told in one line, before anything is built or believed."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import garnish
import tiny
from garnish.bundles.peft.tensor_file import TensorFile
from garnish.errors import BundleError
from garnish.heads.segformer import SegFormerDecoder
from peft_trunks import adapted

CONFIG, TENSORS, HEADS = "adapter_config.json", "adapter_model.safetensors", "heads.safetensors"
MAGNITUDE, SUFFIXES = "lora_magnitude_vector", ("", ".weight")
AT = "base_model.model.blocks.1.attn.qkv."


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("peft") / "adapter"
    return garnish.export_peft(adapted("vit", garnish.LoRA(rank=3), head=garnish.SegFormerHead(channels=8)), folder)


@pytest.fixture
def folder(written, tmp_path) -> Path:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refused(folder: Path, *, ours: bool = True) -> str:
    if not ours:
        (folder / "task.json").unlink()
        (folder / HEADS).unlink()
    task = None if ours else {"seg": garnish.Semantic(classes=5)}
    with pytest.raises(BundleError) as caught:
        garnish.import_peft(folder, backbone=tiny.backbone("vit"), tasks=task)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


def change(folder: Path, file: str, changed) -> None:
    tensors = load_file(folder / file)
    changed(tensors)
    save_file(tensors, folder / file)


def configure(folder: Path, **keys: object) -> None:
    config = json.loads((folder / CONFIG).read_text()) | keys
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("name", [CONFIG, "task.json", TENSORS, HEADS])
def test_pipes_folders_and_files_of_holes(name, folder):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    if name != CONFIG:
        assert "no regular file" in refused(folder)
    (folder / name).unlink()
    with (folder / name).open("wb") as stream:
        stream.truncate(2 * 10**11)
    assert f"{name}: cannot be read (its 200,000,000,000 bytes are more than" in refused(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder)


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("whole numbers", lambda t: t.update({f"{AT}lora_A.weight": torch.ones(3, 48).long()}), "is of type I64"),
        ("beyond float32", lambda t: t[f"{AT}lora_B.weight"].fill_(1e300), "are not finite (in float32)"),
        ("not finite", lambda t: t[f"{AT}lora_B.weight"].fill_(float("nan")), "not finite"),
        ("rows", lambda t: t.update({f"{AT}lora_A.weight": torch.ones(3, 49)}), "lora_A has shape (3, 49)"),
        ("dimensions", lambda t: t.update({f"{AT}lora_A.weight": torch.ones(3)}), "lora_A has shape (3,)"),
        ("two magnitudes", lambda t: t.update({f"{AT}{MAGNITUDE}{s}": torch.ones(9) for s in SUFFIXES}), "twice"),
        ("controls", lambda t: t.update({"base_model.model.\x1b[2J.lora_A.weight": torch.ones(1)}), r"\x1b[2J"),
        ("a long name", lambda t: t.update({f"base_model.model.{'a' * 501}.lora_A.weight": torch.ones(1)}), "500 char"),
        ("far too many", lambda t: t.update({f"{n}": torch.ones(0) for n in range(50_001)}), "more than 50,000"),
        ("modules", lambda t: t.update({f"{AT}{n}.lora_A.weight": torch.ones(0) for n in range(10_001)}), "10,000 m"),
    ],
)  # fmt: skip
def test_tensors(kind, changed, said, folder):
    def in_double(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{AT}lora_B.weight"] = tensors[f"{AT}lora_B.weight"].double()
        changed(tensors)

    change(folder, TENSORS, in_double)
    assert said in refused(folder)


def test_a_rank_above_both_sides_of_a_layer(folder):
    configure(folder, r=500)

    def widened(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            shape = (500, *tensor.shape[1:]) if "lora_A" in name else (*tensor.shape[:-1], 500)
            tensors[name] = torch.ones(shape)

    change(folder, TENSORS, widened)
    assert "rank 500 is above both sides of the layer" in refused(folder)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lora_alpha": 1e308}, "lora_alpha: expected a number from 1e-06 to 1e+06, or its negative"),
        ({"lora_alpha": 0}, "lora_alpha: expected a number from 1e-06"),
        ({"lora_alpha": 5e-324}, "lora_alpha: expected a number from 1e-06"),
        ({"alpha_pattern": {"qkv": -1e7}}, "alpha_pattern.qkv: expected a number from 1e-06"),
        ({"r": 10**30}, "r: expected a whole number from 1 to"),
        ({"rank_pattern": {"qkv": 2**40}}, "rank_pattern.qkv: expected a whole number from 1"),
        ({"rank_pattern": {f"{n}": 2 for n in range(2001)}}, "rank_pattern holds 2,001 expressions, more than 2,000"),
        ({"rank_pattern": {"a" * 9990 + f"{n}": 2 for n in range(30)}}, "more than 200,000 characters in all"),
        ({"target_modules": ["a"] * 2001}, "a list of names, 2,000 at most"),
        ({"target_modules": ["a" * 501]}, "of 1 to 500 characters"),
        ({"modules_to_save": ["a"] * 101}, "a list of names, 100 at most"),
        ({"target_modules": "(?i)x\x1b[2J"}, r"holds (?i)x\x1b[2J, which is not read"),
        ({"peft_type": ["\x1b[2J" * 99]}, r"\x1b[2J"),
    ],
)
def test_configurations(keys, said, folder):
    configure(folder, **keys)
    assert said in refused(folder)


def test_heads_are_compared_before_they_are_built(folder, monkeypatch):
    """A description of some bytes asks for a decoder of gigabytes; it is planned without values and refused."""
    made, begun = [], SegFormerDecoder.__init__
    monkeypatch.setattr(
        SegFormerDecoder,
        "__init__",
        lambda self, *a: (made.append(torch.get_default_device().type), begun(self, *a))[1],
    )
    described = json.loads((folder / "task.json").read_text())
    described["tasks"]["seg"]["head"]["options"]["channels"] = 3000
    (folder / "task.json").write_text(json.dumps(described))
    assert "its heads do not fit their description" in refused(folder)
    assert set(made) == {"meta"}


def test_a_decode_head_of_no_bytes_is_not_built(folder):
    configure(folder, modules_to_save=["decode_head"])
    fuse = "base_model.model.decode_head.linear_fuse.weight"
    change(folder, TENSORS, lambda t: t.update({fuse: torch.ones(3_000_000, 0, 1, 1)}))
    assert "decode_head" in refused(folder, ours=False)


def test_heads_of_other_numbers(folder):
    name = next(name for name in load_file(folder / HEADS) if name.endswith("fuse.weight"))
    change(folder, HEADS, lambda t: t.update({name: t[name].long()}))
    assert "its heads do not fit their description" in refused(folder)
    change(folder, HEADS, lambda t: t.update({name: t[name].double().fill_(1e300)}))
    assert "are not finite (in float32)" in refused(folder)


def test_names_of_tasks(folder):
    described = json.loads((folder / "task.json").read_text())
    described["tasks"] = {"seg/../x": described["tasks"]["seg"]}
    (folder / "task.json").write_text(json.dumps(described))
    assert "tasks: expected text like [A-Za-z]" in refused(folder)


def test_a_file_that_changes_while_it_is_read(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(save({"a": torch.zeros(2)}))
    held = TensorFile.open(file)
    file.write_bytes(save({"a": torch.zeros(3)}))
    with pytest.raises(BundleError, match="changed while it was read"):
        held.read()


def test_a_header_that_lies(folder):
    file = folder / TENSORS
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header[f"{AT}lora_A.weight"]["shape"] = [3, 2**40]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    assert "is damaged (the entry of" in refused(folder)


def test_a_card_shows_strangers_text_as_text(tmp_path):
    model = adapted("vit", garnish.LoRA(rank=2))
    model.backbone.licence = "x\x1b[2J\n---\n# [click](javascript:1) <script>\ud800 ![a](b) `c`"
    garnish.export_peft(model, tmp_path / "a", base_model="a: b\n- c")
    card = (tmp_path / "a" / "README.md").read_text()
    assert card.replace("\n", "").isprintable()
    front, body = card.split("\n---\n")
    assert 'base_model: "a: b\\n- c"' in front and "license: other" in front
    for raw in ("[click](", "<script>", "![a]", "`c`"):
        assert raw not in body.replace("\\`", "").replace("\\[", "").replace("\\<", "").replace("\\!", "")
    assert "\\[click\\]\\(javascript\\:1\\) \\<script\\>" in body


def test_many_heads_that_no_file_holds_are_not_built(folder):
    facts = json.loads((folder / "task.json").read_text())
    facts["tasks"] |= {f"t{number}": facts["tasks"]["seg"] for number in range(5_000)}  # built, a minute
    (folder / "task.json").write_text(json.dumps(facts))
    begun = time.process_time()
    with pytest.raises(BundleError, match="far more heads than its files hold"):
        garnish.import_peft(folder, backbone=tiny.backbone("vit"))
    assert time.process_time() - begun < 10
