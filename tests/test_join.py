"""Joined and extended models: old tasks stay bit-identical as asked before, and within 1e-6 beside new ones."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import garnish as gn
import tiny
from garnish.adapters.bottleneck import AdaptFormer
from garnish.adapters.lora import LoRA
from garnish.adapters.reference import Frozen, FullFineTuning
from garnish.errors import BundleError
from garnish.heads.segformer import SegFormerHead
from garnish.tasks.depth import Depth
from garnish.tasks.semantic import Semantic

BACKBONES = {
    "dinov2": (
        "vit_small_patch14_dinov2",
        {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
    ),
    "vit": ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 24, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 2, 4]},
    ),
    "mit": ("mit_b0", {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 2], "num_heads": [1, 1, 2, 2]}),
}
TASKS = {"seg": Semantic(classes=5), "depth": Depth(max_metres=10.0), "parts": Semantic(classes=3)}
PAIRS = {
    "LoRA+LoRA": (LoRA(rank=2), LoRA(rank=2)),
    "LoRA+AdaptFormer": (LoRA(rank=2), AdaptFormer(bottleneck=4)),
    "AdaptFormer+LoRA": (AdaptFormer(bottleneck=4), LoRA(rank=2, dora=True)),
    "Full+LoRA": (FullFineTuning(), LoRA(rank=2)),
    "Frozen+LoRA": (Frozen(), LoRA(rank=2)),
}


def trunk(family):
    torch.manual_seed(0)
    name, options = BACKBONES[family]
    return gn.backbone(name, options=options)


def perturb(tensors, seed):
    """Move what was trained away from its start, so that adapters are seen and running statistics are their own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                scale = 0.02 if name.startswith("tuned") else 0.05
                noise = scale * torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.abs() if "running_var" in name else noise)


def adapted(backbone, method, tasks, seed):
    model = gn.adapt(backbone, method, {t: TASKS[t] for t in tasks}, SegFormerHead(channels=8))
    perturb(model.own_tensors(), seed)
    return model.eval()


def pictures(count=3):
    return torch.rand(count, 3, 64, 80, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def outputs(model, tasks=None):
    return {task: out.clone() for task, out in model(pictures(), tasks).items()}


def train(model, steps=3):
    """Some steps of AdamW on random targets of the tasks that are not frozen."""
    model.train()
    parameters = model.trained_parameters()
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.01)
    tasks = [t for t in model.tasks if t not in model.frozen_tasks]
    for _ in range(steps):
        out = model(pictures(), tasks)
        loss = sum(o.square().mean() + o.mean() for o in out.values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("family", ["dinov2", "swin", "mit"])
def test_joined_bundles_keep_every_task(tmp_path, family, pair):
    alone = {}
    for task, method, seed in zip(("seg", "depth"), PAIRS[pair], (1, 2), strict=True):
        model = adapted(trunk(family), method, [task], seed)
        alone |= outputs(model)
        model.save(tmp_path / task, dtype="float32")
    joined = gn.load([tmp_path / "seg", tmp_path / "depth"], backbone=trunk(family))
    assert list(joined.tasks) == ["seg", "depth"] and not joined.training
    together = outputs(joined)
    for task, before in alone.items():
        assert torch.equal(outputs(joined, [task])[task], before), task
        assert (together[task] - before).abs().max() <= 1e-6 * max(1.0, before.abs().max().item()), task
    # what is left is float32 rounding (matrix products of other shapes): it goes away in float64
    with torch.no_grad():
        wide = joined.double()
        both, single = wide(pictures().double()), {t: wide(pictures().double(), [t])[t] for t in alone}
    assert all((both[t] - single[t]).abs().max() <= 1e-13 * max(1.0, single[t].abs().max()) for t in alone)
    joined.float()
    rows = outputs(joined, [["seg"], ["depth", "seg"], ["depth"]])
    for task, which in (("seg", [0, 1]), ("depth", [1, 2])):
        assert torch.allclose(rows[task], alone[task][which], rtol=0, atol=1e-5)
    # the methods do something, or nothing above could fail
    plain = outputs(gn.load(tmp_path / "seg", backbone=trunk(family)))
    assert torch.equal(plain["seg"], alone["seg"])


@pytest.mark.parametrize("head", tiny.HEADS)
@pytest.mark.parametrize("family", ["dinov2", "swin", "mit"])
def test_freezing_and_loading_change_no_bit(tmp_path, family, head):
    # torch.matmul folds batches by layout and by whether the weight is trained: a head must not show it
    for method in (FullFineTuning(), LoRA(rank=2, per_task=True)):
        model = gn.adapt(trunk(family), method, {t: TASKS[t] for t in ("seg", "depth")}, tiny.example("heads", head))
        perturb(model.own_tensors(), 1)
        model.eval()
        before = [outputs(model, tasks) for tasks in (None, ["seg"])]
        model.freeze(["seg", "depth"])
        model.save(tmp_path / "bundle", dtype="float32")
        loaded = gn.load(tmp_path / "bundle", backbone=trunk(family))
        for tasks, expected in zip((None, ["seg"]), before, strict=True):
            for other in (model, loaded):
                found = outputs(other, tasks)
                assert all(torch.equal(found[t], expected[t]) for t in expected), method


@pytest.mark.parametrize(
    "new", [LoRA(rank=2), AdaptFormer(bottleneck=4), FullFineTuning()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("family", ["vit", "swin", "mit"])
def test_a_task_trained_onto_others_leaves_them_bit_identical(family, new):
    # the old owners adapt the last stage only, the new one all: rows must not fork earlier for the old ones
    old = LoRA(rank=2, per_task=True, layers=("stages.3.blocks.0.mlp.fc1",))
    model = adapted(trunk(family), old, ["seg", "depth"], seed=1)
    asked = (None, ["seg"], ["depth"], [["seg"], ["depth", "seg"], ["depth"]])
    before = [outputs(model, tasks) for tasks in asked]
    frozen = {n: t.clone() for n, t in model.own_tensors().items()}
    trunk_before = {n: t.clone() for n, t in model.backbone.frozen_tensors().items()}

    model.add(new, {"parts": TASKS["parts"]}, SegFormerHead(channels=8), freeze_others=True)
    start = {n: t.clone() for n, t in model.own_tensors().items()}
    train(model)

    own = model.own_tensors()
    assert all(torch.equal(own[n], t) for n, t in frozen.items())
    moved = [n for n, t in start.items() if n not in frozen and not torch.equal(own[n], t)]
    assert any(n.startswith(("adapters.parts", "tuned.parts")) for n in moved)
    assert "heads.parts.norm.running_mean" in moved
    assert all(torch.equal(t, trunk_before[n]) for n, t in model.backbone.frozen_tensors().items())
    for tasks, expected in zip(asked, before, strict=True):
        found = outputs(model, ["seg", "depth"] if tasks is None else tasks)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[t], expected[t]) for t in expected), tasks
    together = outputs(model)
    for task in ("seg", "depth"):
        size = max(1.0, before[0][task].abs().max().item())
        assert (together[task] - before[0][task]).abs().max() <= 1e-6 * size


@pytest.mark.parametrize("family", ["dinov2", "swin", "mit"])
def test_the_frozen_prefix_is_computed_once_an_image(tmp_path, family):
    last = LoRA(rank=2, layers=("stages.3.blocks.0.attn.proj",))
    for task, seed in (("seg", 1), ("depth", 2)):
        adapted(trunk(family), last, [task], seed).save(tmp_path / task)
    joined = gn.load([tmp_path / "seg", tmp_path / "depth"], backbone=trunk(family))
    seen: dict[str, list[int]] = {}
    handles = [
        joined.backbone.stem.register_forward_hook(lambda m, a, o: seen.setdefault("stem", []).append(len(a[0])))
    ]
    for number, stage in enumerate(joined.backbone.stages):
        residual = next(iter(stage.blocks[0].children()))
        handles.append(
            residual.register_forward_hook(
                lambda m, a, o, n=number: seen.setdefault(f"stage {n}", []).append(len(a[0]))
            )
        )
    outputs(joined)
    assert seen == {"stem": [3], "stage 0": [3], "stage 1": [3], "stage 2": [3], "stage 3": [6]}
    seen.clear()
    outputs(joined, [["seg"], ["seg", "depth"], ["depth"]])
    assert seen == {"stem": [3], "stage 0": [3], "stage 1": [3], "stage 2": [3], "stage 3": [4]}
    seen.clear()
    outputs(joined, ["depth"])
    assert seen["stage 3"] == [3]
    for handle in handles:
        handle.remove()


def test_a_joined_model_saves_and_loads_as_one(tmp_path):
    for task, method, seed in (("seg", LoRA(rank=2), 1), ("depth", FullFineTuning(), 2)):
        adapted(trunk("mit"), method, [task], seed).save(tmp_path / task, dtype="float32")
    joined = gn.load([tmp_path / "seg", tmp_path / "depth"], backbone=trunk("mit"))
    joined.save(tmp_path / "both", dtype="float32")
    again = gn.load(tmp_path / "both", backbone=trunk("mit"))
    first, second = outputs(joined), outputs(again)
    assert list(first) == list(second)
    assert all(torch.equal(first[t], second[t]) for t in first)
    # and a copy is independent
    twin = copy.deepcopy(again)
    perturb(twin.own_tensors(), 5)
    assert all(torch.equal(outputs(again)[t], second[t]) for t in second)


def test_joining_refuses_equal_names_and_other_backbones(tmp_path):
    adapted(trunk("mit"), LoRA(rank=2), ["seg"], 1).save(tmp_path / "a")
    adapted(trunk("mit"), LoRA(rank=4), ["depth", "seg"], 2).save(tmp_path / "b")
    with pytest.raises(BundleError, match=r"b: task 'seg' is in .*a too"):
        gn.load([tmp_path / "a", tmp_path / "b"], backbone=trunk("mit"))
    torch.manual_seed(1)
    name, options = BACKBONES["mit"]
    adapted(gn.backbone(name, options=options), LoRA(rank=2), ["depth"], 1).save(tmp_path / "c")
    with pytest.raises(BundleError, match=r"c: belongs to another backbone than .*a \(fingerprint [0-9a-f]{12}, not"):
        gn.load([tmp_path / "a", tmp_path / "c"], backbone=trunk("mit"))
    adapted(trunk("swin"), LoRA(rank=2), ["depth"], 1).save(tmp_path / "d")
    with pytest.raises(BundleError, match=r"d: .*name swin_tiny_patch4_window7_224, not mit_b0"):
        gn.load([tmp_path / "a", tmp_path / "d"], backbone=trunk("mit"))
    torch.manual_seed(0)
    name, options = BACKBONES["swin"]
    merged = gn.backbone(name, options=options, taps="merged")
    adapted(merged, LoRA(rank=2), ["seg"], 1).save(tmp_path / "e")
    facts = [json.loads((tmp_path / bundle / "bundle.json").read_text())["backbone"] for bundle in "de"]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"], "only where maps are read differs"
    with pytest.raises(BundleError, match=r"e: belongs to another backbone than .*d \(taps merged, not stage\)"):
        gn.load([tmp_path / "d", tmp_path / "e"], backbone=trunk("swin"))
    torch.manual_seed(0)
    name, options = BACKBONES["mit"]  # the same tensors, cut into other heads
    heads = gn.backbone(name, options={**options, "num_heads": [1, 1, 2, 4]})
    adapted(heads, LoRA(rank=2), ["depth"], 1).save(tmp_path / "f")
    facts = [json.loads((tmp_path / bundle / "bundle.json").read_text())["backbone"] for bundle in "af"]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    with pytest.raises(BundleError, match=r"f: belongs to another backbone than .*a \(options .*num_heads"):
        gn.load([tmp_path / "a", tmp_path / "f"], backbone=trunk("mit"))
    with pytest.raises(BundleError, match="empty"):
        gn.load([])
