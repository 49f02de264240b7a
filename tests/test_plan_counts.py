"""What ``garnish plan`` calls exact is what real models and real files have."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save as to_bytes
from torch._subclasses.fake_tensor import FakeTensorMode

import garnish as gn
import tiny
from garnish import registry
from garnish.engine.adapter import Method
from garnish.model.model import adapt
from garnish.model.report import count_macs, report_without_macs
from garnish.model.stored_size import stored_bytes
from garnish.planning.candidates import Candidate, Refused, candidates
from garnish.planning.counting import Counted, Setting, count
from garnish.planning.shaped_trunk import ShapedTrunk
from garnish.planning.step_cost_prediction import predict_step

TRUNKS = ("vit", "swin", "mit")


def tasks() -> dict[str, gn.Task]:
    return {name: registry.build("tasks", *tiny.TASKS[name]) for name in tiny.TASKS}


def shaped(short: str) -> ShapedTrunk:
    _, name, options = tiny.BACKBONES[short]
    return ShapedTrunk(name, options)


def head() -> gn.SegFormerHead:
    return gn.SegFormerHead(channels=16)  # with a batch norm, whose counter is stored as a whole number


@pytest.mark.parametrize("short", [pytest.param(s, marks=[pytest.mark.slow] * (s == "swin")) for s in TRUNKS])
def test_counts_are_those_of_real_models_and_of_the_files_they_save(short, tmp_path):
    trunk = shaped(short)
    found, _ = candidates(trunk.without_memory(), len(tasks()))
    seen = set()
    for candidate in found:
        if (candidate.name, candidate.sharing) in seen:  # the first size of each method, shared and a copy each
            continue
        seen.add((candidate.name, candidate.sharing))
        counted = count(Setting(trunk, tasks(), head(), 2, (64, 96)), candidate)
        if isinstance(counted, Refused):
            continue
        model = adapt(tiny.backbone(short), candidate.method, tasks(), head())
        facts = report_without_macs(model)
        assert counted.encoder_total == facts["total"], candidate
        assert counted.encoder_trainable == facts["encoder"], candidate
        assert counted.decoder_trainable == facts["heads"], candidate
        written = model.save(tmp_path / f"{len(seen)}") / "weights.safetensors"
        assert counted.bundle_bytes == facts["bytes"] == written.stat().st_size, candidate
    assert {name for name, _ in seen} >= {"Frozen", "LoRA", "SideTuning", "PolyhistorLite", "FullFineTuning"}


@pytest.mark.parametrize(
    ("short", "name"), [("vit", "LoRA"), ("swin", "MTLoRA"), ("mit", "SideTuning"), ("vit", "VPT"), ("mit", "Mona")]
)
def test_macs_are_those_of_the_real_model(short, name):
    method = registry.build("adapters", name)
    found = predict_step(Setting(shaped(short), tasks(), head(), 2, (64, 96)), method)
    model = adapt(tiny.backbone(short), method, tasks(), head())
    assert found.macs == count_macs(model, (64, 96))[0]


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"a": torch.zeros(3, 5)},
        {"z": torch.zeros(2), "count": torch.zeros((), dtype=torch.int64), "a.b": torch.zeros(9, 1, 3)},
        {f"layer.{i}.weight": torch.zeros(i, 7, dtype=torch.float64) for i in range(40)},
        {"mask": torch.zeros(5, dtype=torch.bool), "i": torch.zeros(3, dtype=torch.int32), "ü": torch.zeros(1)},
        {"byte": torch.zeros(3, dtype=torch.uint8), "short": torch.zeros(1, dtype=torch.int16), "x": torch.zeros(0)},
    ],
)
def test_the_size_of_a_file_is_known_without_writing_it(tensors):
    kept = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    assert stored_bytes(tensors) == (len(to_bytes(kept)) if tensors else 0)


def test_every_method_is_tried_and_sizes_are_its_own():
    found, _ = candidates(shaped("swin").without_memory(), 1)
    sizes: dict[str, list[Candidate]] = {}
    for candidate in found:
        sizes.setdefault(candidate.name, []).append(candidate)
    assert set(sizes) == set(registry.classes("adapters"))
    assert [c.size for c in sizes["MTLoRA"]] == [
        {"rank": r} for r in gn.MTLoRA.grid["rank"] if r <= 24
    ]  # the least width
    assert [c.size for c in sizes["BitFit"]] == [{}]


def test_a_method_that_brings_no_grid_needs_no_edit(monkeypatch):
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Mine(Method):
        layers: tuple[str, ...] = ()

        def plan(self, backbone):
            return gn.LoRA(rank=1, layers=self.layers).plan(backbone)

    trunk = shaped("vit").without_memory()
    known = {**registry.classes("adapters"), "Mine": Mine}
    monkeypatch.setattr(registry, "classes", lambda kind: known)
    found, refused = candidates(trunk, 2, ["Mine"])
    assert [str(c) for c in found] == [
        f"Mine, {place}, {sharing}" for place in ("all", "attention", "mlp") for sharing in ("shared", "per task")
    ]
    assert not refused


def test_layers_are_chosen_by_what_the_trunk_has():
    by_hand = {"all": 4 * (3 + 1 + 4 + 1 + 3 + 4), "attention": 4 * (3 + 1 + 1 + 1), "mlp": 4 * (1 + 4 + 4 + 1)}
    trunk = shaped("vit")  # width 48, four blocks: qkv, proj, fc1, fc2
    found, _ = candidates(trunk.without_memory(), 1, ["LoRA"])
    setting = Setting(trunk, {"seg": gn.Semantic(classes=2)}, None, 2, (64, 96))
    counted = {c.placement: count(setting, c) for c in found if c.size["rank"] == 1}
    assert by_hand["attention"] + by_hand["mlp"] == by_hand["all"]
    for place, number in by_hand.items():
        kept = counted[place]
        assert isinstance(kept, Counted) and kept.encoder_trainable == 48 * number, place


def test_convolutional_trunks_have_no_choice_of_layers_and_say_what_they_refuse():
    found, refused = candidates(shaped("cnn").without_memory(), 1)
    assert {c.placement for c in found if c.name == "LoRA"} <= {"all"}
    told = {r.name.split()[0]: r.reason for r in refused}
    assert "AdaptFormer" in told and "VPT" in told
    assert all(reason.count("\n") == 0 for reason in told.values())
    assert not {c.name for c in found} & {"AdaptFormer", "VPT"}


def test_what_tasks_own_parts_of_is_not_copied_for_each():
    found, _ = candidates(shaped("swin").without_memory(), 2, ["MTLoRA", "SideTuning", "Frozen"])
    assert {(c.name, c.sharing) for c in found} == {
        ("MTLoRA", "shared"), ("SideTuning", "shared"), ("SideTuning", "per task"), ("Frozen", "")
    }  # fmt: skip


def test_candidates_know_what_the_rule_asks():
    found, _ = candidates(shaped("swin").without_memory(), 1)
    traits = {c.name: (c.merges, c.beside, c.parts) for c in found}
    assert traits["LoRA"] == (True, False, False) and traits["SSF"] == (True, False, False)
    assert traits["SideTuning"] == (False, True, False)
    assert traits["VMTAdapter"] == traits["MTLoRA"] == (False, False, True)
    assert traits["PolyhistorLite"] == traits["VPT"] == traits["AdaptFormer"] == (False, False, False)


def test_a_trunk_of_fake_tensors_is_the_real_one_in_shape():
    trunk = shaped("mit").to_run(FakeTensorMode())
    real = tiny.backbone("mit").frozen_tensors()
    assert {n: t.shape for n, t in trunk.frozen_tensors().items()} == {n: t.shape for n, t in real.items()}
    assert {t.device.type for t in trunk.frozen_tensors().values()} == {"cpu"}
