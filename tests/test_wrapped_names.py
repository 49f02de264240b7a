"""Checkpoints whose tensors bear a wrapper's prefix: read without it, with a line that says so, or refused."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import garnish
import tiny
from garnish.errors import WeightsError

FAMILIES = ("vit", "dinov3", "swin", "swinv2", "convnext", "cnn", "mit")
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "student.", "net.module._orig_mod.")


def whole(short: str) -> dict[str, torch.Tensor]:
    """A checkpoint of the trunk alone, in the names that its family reads."""
    trunk = tiny.backbone(short)
    return {trunk.source_names[n]: t.contiguous() for n, t in trunk.frozen_tensors().items()}


def build(short: str, tensors: dict[str, torch.Tensor], tmp_path):
    save_file({n: t.clone() for n, t in tensors.items()}, tmp_path / "weights.safetensors")
    _, name, options = tiny.BACKBONES[short]
    return garnish.backbone(name, str(tmp_path / "weights.safetensors"), options=options)


def prefixed(short: str, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in whole(short).items()}


@pytest.mark.parametrize("short", FAMILIES)
def test_names_as_they_are_need_no_word(short, tmp_path):
    assert build(short, whole(short), tmp_path).fingerprint() == tiny.backbone(short).fingerprint()


@pytest.mark.parametrize("short", FAMILIES)
@pytest.mark.parametrize("prefix", WRAPPERS)
def test_a_wrapper_s_prefix_is_taken_off_and_said(short, prefix, tmp_path):
    if (short, prefix) == ("mit", "backbone."):
        pytest.skip("the prefix of a whole model of NVlabs'")
    with pytest.warns(UserWarning, match=f"without their prefix '{prefix}'") as told:
        trunk = build(short, prefixed(short, prefix), tmp_path)
    assert len(told) == 1 and "\n" not in str(told[0].message) and "left out" not in str(told[0].message)
    assert trunk.fingerprint() == tiny.backbone(short).fingerprint()


def test_what_lies_beside_the_prefix_is_named(tmp_path):
    beside = {"decode_head.conv.weight": torch.zeros(2), "step": torch.zeros(1)}
    with pytest.warns(UserWarning, match=r"'backbone\.'; 2 tensors beside it are left out \(decode_head, step\)"):
        trunk = build("swin", prefixed("swin", "backbone.") | beside, tmp_path)
    assert trunk.fingerprint() == tiny.backbone("swin").fingerprint()


@pytest.mark.parametrize("short", FAMILIES)
def test_a_student_and_its_teacher_are_refused_and_the_remedy_works(short, tmp_path):
    both = prefixed(short, "student.") | {n: 2 * t for n, t in prefixed(short, "teacher.").items()}
    with pytest.raises(WeightsError, match=r"'student\.' and 'teacher\.'; save those of one") as caught:
        build(short, both, tmp_path)
    assert "\n" not in str(caught.value)
    one = {n.removeprefix("student."): t for n, t in both.items() if n.startswith("student.")}
    assert build(short, one, tmp_path).fingerprint() == tiny.backbone(short).fingerprint()


def test_a_part_of_the_tensors_under_a_prefix_is_still_refused(tmp_path):
    tensors = prefixed("vit", "module.")
    tensors.pop("module.blocks.2.mlp.fc1.weight")
    with pytest.warns(UserWarning, match=r"module\."), pytest.raises(WeightsError, match=r"lack blocks\.2\.mlp\.fc1"):
        build("vit", tensors, tmp_path)


def test_names_of_another_kind_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"the file begins with module\.visual\.a\.weight\)") as caught:
        build("vit", {"module.visual.a.weight": torch.zeros(2), "module.visual.b": torch.zeros(2)}, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_norm_behind_the_trunk_is_carried_into_a_merged_checkpoint(tmp_path):
    """It is read from the original file once more: there too without the prefix."""
    _, name, options = tiny.BACKBONES["vit"]
    timms = timm.create_model(name, num_classes=3, **options).state_dict()
    with pytest.warns(UserWarning, match=r"prefix 'module\.'"):
        trunk = build("vit", {f"module.{n}": t for n, t in timms.items()}, tmp_path)
    model = garnish.adapt(trunk, garnish.LoRA(rank=2), {"seg": garnish.Semantic(classes=2)})
    garnish.merge(model, tmp_path / "merged.safetensors")
    assert torch.equal(load_file(tmp_path / "merged.safetensors")["norm.weight"], timms["norm.weight"])
