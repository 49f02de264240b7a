"""Merging: the file gives the adapted maps in garnish and in timm itself, or nothing is written at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import garnish
import tiny
from garnish.adapters.layers.low_rank import LoRAAdapter
from garnish.backbones.segformer import dialects
from garnish.bundles.bundle_json import read_bundle_json
from garnish.cli import main
from garnish.engine.folding import fold_shared, merge_adapters
from garnish.engine.owner import owners_of
from garnish.engine.trained_scale import TrainedScale
from garnish.errors import BundleError, OptionError, SiteError
from garnish.files import atomic
from garnish.model.model import adapt

BOUND = 1e-5
#: a scale at which these random trunks, unlike trained ones, do not magnify rounding
LORA = garnish.LoRA(rank=2, alpha=2.0)
TRUNKS = ("vit", "swin", "mit", "convnext", "cnn")
METHODS = {
    "lora": garnish.LoRA(rank=2, alpha=2.0, rs=True),
    "dora": garnish.LoRA(rank=2, alpha=2.0, dora=True),
    "ssf": garnish.SSF(),
    "bitfit": garnish.BitFit(tables=True),
    "norms": garnish.NormTuning(),
    "partial": garnish.Partial(blocks=2),
    "extras": garnish.Extras(),
    "full": garnish.FullFineTuning(),
    "two": [garnish.LoRA(rank=3, alpha=3.0), garnish.NormTuning()],
}
TASKS = {"seg": garnish.Semantic(classes=3), "depth": garnish.Depth(max_metres=10.0)}
LICENCE = "Apache-2.0"


def weights_of(short, folder, **metadata):
    """A file as it is published: timm's whole model, or NVlabs' names."""
    _, name, options = tiny.BACKBONES[short]
    trunk = tiny.backbone(short)
    if short == "mit":
        held = dialects.write({n: t.detach() for n, t in trunk.frozen_tensors().items()}, "nvlabs", prefix="")
    else:
        whole = timm.create_model(name, **options)
        known = {trunk.source_names[n]: t.detach() for n, t in trunk.frozen_tensors().items()}
        missing = whole.load_state_dict(known, strict=False)
        assert not missing.unexpected_keys
        held = whole.state_dict()
    file = folder / f"{short}.safetensors"
    save_file({n: t.contiguous() for n, t in held.items()}, file, {"license": LICENCE, **metadata})
    return file


def trained(short, methods, folder, *, tasks=("seg", "depth"), taps="stage", file=None):
    """A model on weights from a file, whose adapters and heads are away from their start."""
    _, name, options = tiny.BACKBONES[short]
    trunk = garnish.backbone(name, str(file or weights_of(short, folder)), options=options, taps=taps)
    torch.manual_seed(0)
    model = adapt(trunk, methods, {t: TASKS[t] for t in tasks})
    tiny.randomise_own(model)
    return model.eval()


@torch.no_grad()
def maps_of(model, x, owner=0):
    return model.backbone(x, model.owners[owner])


def assert_same(ours, theirs, bound=BOUND):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert tiny.far(mine, other) <= bound


def pixels(height, width, dtype=torch.float32):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(6), dtype=dtype)


def is_refused(short, kind):
    # its convolutions have no bias, so SSF's shift has nowhere to go (see test_what_is_no_plain_layer_is_refused)
    return (short, kind) == ("cnn", "ssf")


def pairs(trunks, kinds):
    """Every kind and every trunk in the fast suite, their whole product beside it."""
    fast = {(trunks[n % len(trunks)], kind) for n, kind in enumerate(kinds)} | {(trunk, "lora") for trunk in trunks}
    return [
        pytest.param(trunk, kind, marks=() if (trunk, kind) in fast else pytest.mark.slow, id=f"{trunk}-{kind}")
        for trunk in trunks
        for kind in kinds
        if not is_refused(trunk, kind)
    ]


@pytest.mark.parametrize(("short", "kind"), pairs(TRUNKS, METHODS))
def test_the_file_gives_the_adapted_maps_here_and_in_timm(short, kind, tmp_path):
    model = trained(short, METHODS[kind], tmp_path)
    file = tmp_path / "merged.safetensors"
    said = garnish.merge(model, file)
    assert said.largest_relative <= BOUND and said.files == ("merged.safetensors",)
    _, name, options = tiny.BACKBONES[short]
    merged = garnish.backbone(name, str(file), options=options)
    assert not merged.is_adapted and merged.licence == LICENCE
    for size in ((96, 96), (64, 128)):
        x = pixels(*size)
        with torch.no_grad():
            got = merged(x)
        assert_same(got, maps_of(model, x))
    plain = garnish.backbone(name, str(tmp_path / f"{short}.safetensors"), options=options)
    with torch.no_grad():
        assert tiny.far(got[-1], plain(x)[-1]) > 1e-2, "nothing was adapted, so equality would prove nothing"
    if short == "mit":
        return
    whole = timm.create_model(name, checkpoint_path=str(file), **options).eval()  # strict: every name is there
    x = pixels(224, 224) if short == "swin" else pixels(64, 64)
    with torch.no_grad():
        theirs = whole.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")
    ours = maps_of(model, x)
    assert_same(theirs[-len(ours) :], ours)


@pytest.mark.parametrize(("short", "kind"), pairs(("swin", "mit", "convnext", "vit"), ("ssf", "dora", "lora")))
def test_merging_is_exact_in_float64(short, kind, tmp_path):
    model = trained(short, METHODS[kind], tmp_path).double()
    x = pixels(64, 96, torch.float64)
    with torch.no_grad():
        assert_same(merge_adapters(model.backbone, model.owners[0])(x), maps_of(model, x), 1e-10)


@pytest.mark.parametrize(("short", "layer"), [("mit", "dw"), ("convnext", "conv_dw"), ("cnn", "conv_dw")])
def test_depthwise_convolutions_merge(short, layer, tmp_path):
    trunk = tiny.backbone(short)
    sites = [s.name for s in trunk.sites() if s.kind == "layer" and s.role == layer]
    weights = {s: trunk.frozen_tensors()[f"{s}.weight"] for s in sites}
    name = sites[0]
    with pytest.warns(UserWarning, match="the update holds"):
        model = trained(short, garnish.LoRA(rank=weights[name].shape[0], layers=(name,)), tmp_path)
        garnish.merge(model, tmp_path / "merged.safetensors")
    _, made, options = tiny.BACKBONES[short]
    merged = garnish.backbone(made, str(tmp_path / "merged.safetensors"), options=options)
    assert merged.frozen_tensors()[f"{name}.weight"].shape == weights[name].shape
    x = pixels(64, 96)
    with torch.no_grad():
        assert_same(merged(x), maps_of(model, x))
    assert tiny.far(merged.frozen_tensors()[f"{name}.weight"], weights[name]) > 1e-2


def test_what_the_trunk_leaves_out_is_carried_over(tmp_path):
    model = trained("vit", LORA, tmp_path)
    before = load_file(tmp_path / "vit.safetensors")
    said = garnish.merge(model, tmp_path / "merged.safetensors")
    after = load_file(tmp_path / "merged.safetensors")
    assert set(after) == set(before)
    assert set(said.carried_over) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert all(torch.equal(after[name], before[name]) for name in said.carried_over)
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed and all(name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")) for name in changed)
    with safe_open(tmp_path / "merged.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    facts = json.loads(metadata["garnish_merge"])
    assert facts["largest_relative"] == said.largest_relative <= BOUND and facts["probes"][0] != facts["probes"][1]
    assert metadata["license"] == LICENCE and facts["methods"][0]["name"] == "LoRA"


@pytest.mark.parametrize("eps", [{}, {"norm_eps": 1e-5}, {"norm_eps": 1e-6, "embed_norm_eps": 1e-5}])
def test_mit_is_written_in_names_whose_norms_compute_the_same(eps, tmp_path):
    _, name, options = tiny.BACKBONES["mit"]
    trunk = garnish.backbone(name, options={**options, **eps})
    tiny.randomise_trunk(trunk)
    model = adapt(trunk, LORA, TASKS).eval()
    tiny.randomise_own(model)
    garnish.merge(model, tmp_path / "merged.safetensors")
    merged = garnish.backbone(name, str(tmp_path / "merged.safetensors"), options=options)
    x = pixels(64, 96)
    with torch.no_grad():
        assert_same(merged(x), maps_of(model, x))


def test_the_bundled_backbone_becomes_an_mit_b0(tmp_path):
    model = adapt(garnish.backbone("garnish_b0"), garnish.SSF(), TASKS).eval()
    said = garnish.merge(model, tmp_path / "merged")
    assert said.backbone == "mit_b0"
    loaded = garnish.load(tmp_path / "merged")
    x = tiny.pictures(2)
    with torch.no_grad():
        assert_same(list(loaded(x).values()), list(model(x).values()))


# ---- what is left beside the checkpoint ------------------------------------------------------------------------------


def test_a_folder_holds_a_bundle_of_the_heads(tmp_path, monkeypatch):
    model = trained("swin", LORA, tmp_path, taps="merged")
    model.owner_of("seg").scale = TrainedScale((64, 48), (0.5, 2.0))
    model.save(tmp_path / "bundle", metrics={"seg": {"miou": 0.5}, "depth": {"rmse": float("nan")}})
    said = garnish.merge(tmp_path / "bundle", tmp_path / "merged")
    assert sorted(f.name for f in (tmp_path / "merged").iterdir()) == sorted(said.files)
    listed = [line.split()[1] for line in (tmp_path / "merged/SHA256SUMS").read_text().splitlines()]
    assert sorted([*listed, "SHA256SUMS"]) == sorted(said.files)
    facts = read_bundle_json(tmp_path / "merged")
    assert facts["backbone"]["weights_source"] == "backbone.safetensors" and facts["backbone"]["licence"] == LICENCE
    (owner,) = facts["owners"]
    assert owner["tasks"] == ["seg", "depth"] and [m["name"] for m in owner["methods"]] == ["Frozen"]
    assert facts["metrics"] == {"seg": {"miou": 0.5}, "depth": {"rmse": None}} and facts["dtype"] == "float16"
    assert facts["extra"]["merged"]["largest_relative"] <= BOUND
    assert garnish.load(tmp_path / "merged").owner_of("depth").scale == TrainedScale((64, 48), (0.5, 2.0))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "backbone.safetensors").write_bytes(b"another file of that name")
    moved = (tmp_path / "merged").rename(tmp_path / "moved")
    x = tiny.pictures(2, 70, 90)
    with torch.no_grad():
        before, after = garnish.load(tmp_path / "bundle")(x), garnish.load(moved)(x)
    assert_same([after[t] for t in TASKS], [before[t] for t in TASKS])
    assert garnish.merge(tmp_path / "bundle", moved).largest_relative <= BOUND  # its own folder is replaced
    with pytest.raises(OptionError, match=r"Frozen of seg\+depth adds nothing"):
        garnish.merge(moved, tmp_path / "again")


def test_one_owner_of_several(tmp_path):
    model = trained("vit", dataclasses.replace(LORA, per_task=True), tmp_path)
    with pytest.raises(OptionError, match=r"2 owners \(seg, depth\).*--task"):
        garnish.merge(model, tmp_path / "merged")
    with pytest.raises(OptionError, match="unknown task 'deep'; did you mean 'depth'"):
        garnish.merge(model, tmp_path / "merged", task="deep")
    garnish.merge(model, tmp_path / "merged", task="depth")
    loaded = garnish.load(tmp_path / "merged")
    assert list(loaded.tasks) == ["depth"]
    x = tiny.pictures(2)
    with torch.no_grad():
        assert tiny.far(loaded(x)["depth"], model(x)["depth"]) <= BOUND


MTLORA = [
    ("swin", {}, "stage"),
    ("swin", {"plus": True}, "merged"),
    ("swin", {"add_shared": True}, "merged"),
    ("mit", {}, "stage"),
    ("vit", {"extras": False}, "stage"),
]


@pytest.mark.parametrize(("short", "options", "taps"), MTLORA)
def test_mtlora_folds_what_tasks_share(short, options, taps, tmp_path):
    model = trained(short, garnish.MTLoRA(rank=3, task_rank=2, scale=1.0, **options), tmp_path, taps=taps)
    assert not model.training
    untouched = {n: t.clone() for n, t in {**model.own_tensors(), **model.backbone.frozen_tensors()}.items()}
    said = garnish.merge(model, tmp_path / "merged")
    assert said.left[0]["options"]["folded"] is True and said.largest_relative <= BOUND
    loaded = garnish.load(tmp_path / "merged")
    x = tiny.pictures(2, 64, 96)
    with torch.no_grad():
        assert_same([loaded(x)[t] for t in TASKS], [model(x)[t] for t in TASKS])
    count = [sum(p.numel() for p in m.trained_parameters().values()) for m in (loaded, model)]
    assert count[0] < count[1]
    now = {**model.own_tensors(), **model.backbone.frozen_tensors()}
    assert all(torch.equal(now[name], tensor) for name, tensor in untouched.items())
    with pytest.raises(OptionError, match=r"MTLoRA leaves parts that tasks own.*give a folder"):
        garnish.merge(model, tmp_path / "alone.safetensors")


@pytest.mark.parametrize(("short", "options", "taps"), MTLORA)
def test_folding_is_exact_in_float64(short, options, taps, tmp_path):
    model = trained(short, garnish.MTLoRA(rank=3, task_rank=2, scale=1.0, **options), tmp_path, taps=taps).double()
    folded = fold_shared(model.backbone, model.owners[0])
    x = pixels(64, 96, torch.float64)
    owner, *parts = owners_of(folded)
    shared = [at.site for at in owner.places.values()]
    assert shared and all(s.role in ("proj", "fc1", "fc2") for s in shared) and not len(owner.tuned)
    with torch.no_grad():
        for part, unfolded in zip(parts, model.owners[1:], strict=True):
            assert_same(folded(x, part), model.backbone(x, unfolded), 1e-10)
        assert tiny.far(folded(x, parts[0])[-1], folded(x, parts[1])[-1]) > 1e-3


def test_folding_drops_other_owners_and_keeps_what_else_an_owner_tunes(tmp_path):
    model = trained("vit", [garnish.MTLoRA(rank=3, task_rank=2, scale=1.0, extras=False), garnish.BitFit()], tmp_path)
    model.add(LORA, {"fg": garnish.Saliency()})
    tiny.randomise_own(model)
    model.eval()
    said = garnish.merge(model, tmp_path / "merged", task="seg")
    assert [m["name"] for m in said.methods] == ["MTLoRA", "BitFit"] and [m["name"] for m in said.left] == ["MTLoRA"]
    loaded = garnish.load(tmp_path / "merged")
    x = tiny.pictures(2)
    with torch.no_grad():
        assert_same([loaded(x)[t] for t in TASKS], [model(x)[t] for t in TASKS])
    with pytest.raises(SiteError, match="no task owns a part of fg"):
        fold_shared(model.backbone, model.owners[3])


# ---- refusals --------------------------------------------------------------------------------------------------------

REFUSED = [
    ("vit", garnish.AdaptFormer(bottleneck=4), "AdaptFormer.* cannot be merged"),
    ("vit", garnish.VPT(prompts=2), "prompt tokens cannot be merged"),
    ("vit", garnish.SideTuning(), "a side network cannot be merged"),
    ("vit", garnish.VMTAdapter(), "parts that differ by task cannot be merged"),
    ("vit", [garnish.MTLoRA(rank=2), LORA], "LoRA.*is at a site where tasks own a part"),
    ("cnn", garnish.SSF(), "would give it a bias.*no name for"),
    ("dinov3", garnish.SSF(), "would give it a bias.*no name for"),
]


@pytest.mark.parametrize(("short", "methods", "message"), REFUSED, ids=lambda value: str(value)[:24])
def test_what_is_no_plain_layer_is_refused(short, methods, message, tmp_path):
    model = trained(short, methods, tmp_path)
    before = set(tmp_path.iterdir())
    with pytest.raises(SiteError, match=message) as caught:
        garnish.merge(model, tmp_path / "merged")
    assert "\n" not in str(caught.value) and set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("factor", [1.01, float("nan")])
@pytest.mark.parametrize("out", ["merged", "merged.safetensors"])
def test_a_wrong_merge_is_refused_and_nothing_written(out, factor, tmp_path, monkeypatch):
    model = trained("vit", LORA, tmp_path)
    right = LoRAAdapter.merged
    monkeypatch.setattr(LoRAAdapter, "merged", lambda self, w, b: (factor * right(self, w, b)[0], b))
    before = set(tmp_path.iterdir())
    with pytest.raises(BundleError, match=r"differ by .* more than 1e-04; nothing was written"):
        garnish.merge(model, tmp_path / out)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("out", ["merged", "merged.safetensors"])
def test_a_full_disk_leaves_nothing_half_written(out, tmp_path, monkeypatch):
    model = trained("vit", LORA, tmp_path)
    before = set(tmp_path.iterdir())
    written = []

    def full(file, data, **how):
        file.write_bytes(data[:100])
        written.append(file.name)
        if len(written) == (3 if out == "merged" else 1):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_write", full)
        with pytest.raises(BundleError, match=r"No space left on device.*free some space"):
            garnish.merge(model, tmp_path / out)
    assert set(tmp_path.iterdir()) == before
    garnish.merge(model, tmp_path / out)  # and what is there survives
    held = {f: f.read_bytes() for f in tmp_path.rglob("*.safetensors")}
    written.clear()
    monkeypatch.setattr(atomic, "_write", full)
    with pytest.raises(BundleError, match="what was there before is untouched"):
        garnish.merge(model, tmp_path / out)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.safetensors")} == held


def test_only_merged_files_are_replaced(tmp_path):
    model = trained("vit", LORA, tmp_path)
    model.save(tmp_path / "bundle")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    for out in ("vit.safetensors", "bundle", "pictures"):
        with pytest.raises(BundleError, match="was not written by merge"):
            garnish.merge(model, tmp_path / out)
    with pytest.raises(OptionError, match=r"written as \.safetensors"):
        garnish.merge(model, tmp_path / "merged.pth")


# ---- as a user types it ----------------------------------------------------------------------------------------------


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained("mit", LORA, tmp_path).save("trained")
    Image.new("RGB", (50, 40), (200, 80, 10)).save("street.png")
    words = ["merge", "trained", "--out", "merged"]
    shown = subprocess.run(
        [sys.executable, "-m", "garnish", *words], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert "backbone.safetensors" in shown and "largest difference" in shown and "limit 1e-04" in shown
    assert main(["predict", "merged", "street.png", "--out", "maps"]) == 0
    assert main(["predict", "trained", "street.png", "--out", "former"]) == 0
    one, other = (Image.open(f"{folder}/street_seg.png") for folder in ("maps", "former"))
    assert one.tobytes() == other.tobytes()
    assert main(["info", "merged", "--json"]) == 0
    capsys.readouterr()
    assert main([*words[:-1], "alone.safetensors", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["alone.safetensors"] and said["largest_relative"] <= BOUND
    assert main(["merge", "trained", "--out", "street.safetensors", "--task", "sag"]) == 2
    assert "unknown task 'sag'; did you mean 'seg'" in capsys.readouterr().err
    assert main(["merge", "trained", "--out", "trained"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("garnish: trained: exists and was not written by merge") and err.count("\n") == 1


def test_folded_is_an_option_of_the_method():
    whole = tiny.model("swin", garnish.MTLoRA(rank=3), own=False)
    folded = tiny.model("swin", dataclasses.replace(garnish.MTLoRA(rank=3), folded=True), own=False)
    assert set(folded.own_tensors()) < set(whole.own_tensors())
    assert not any(len(owner.tuned) for owner in folded.owners)
