"""What is not finite is refused where it comes in, told where it comes out, and never ranked, saved or resumed from."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import garnish as gn
from garnish.bundles.checkpoint import load_state, save_state
from garnish.checking import finite
from garnish.checking.finite import is_finite, not_finite, odd_rows
from garnish.errors import BundleError, GarnishError, OptionError, WeightsError
from garnish.training import run
from garnish.training.fit import fit
from garnish.training.run import Run
from training_cases import PARTIAL, QUIET, TASKS, Blobs, every, tensors_of, tiny

SHORT = {"batch_size": 4, "check_pictures": 0, **QUIET}
BAD = [math.nan, math.inf, -math.inf]
TRUNK = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}


def spoil(tensor, value=math.nan):
    """Make one value of a tensor ``value``."""
    with torch.no_grad():
        tensor.view(-1)[tensor.numel() // 2] = value


def all_finite(file) -> bool:
    return all(bool(t.isfinite().all()) for t in load_file(file).values())


# ---- looking ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("bad", BAD)
def test_one_value_in_any_dtype_is_found(dtype, bad):
    values = torch.linspace(-2, 2, 60).view(3, 4, 5)
    assert is_finite(values.to(dtype))
    values[1, 2, 3] = bad
    assert not is_finite(values.to(dtype)) and not is_finite(values.to(dtype).transpose(0, 2))


def test_what_is_found_is_named_and_counted():
    good = {"a": torch.ones(2), "n": torch.tensor(7), "none": torch.ones(0, 3), "large": torch.full((9,), 3e38)}
    assert not_finite(good) == ""  # though the sum of the large ones is infinite
    bad = torch.tensor([[1.0, math.nan], [math.inf, 0.0]])
    assert not_finite({**good, "b": bad}) == "b holds 2 of 4 values that are not finite"
    assert not_finite({"b": bad, **good, "c": bad}).endswith("not finite, and so do 1 more tensors")
    rows = torch.zeros(4, 2, 3, 3)
    rows[1, 0, 2, 2], rows[3] = math.inf, math.nan
    assert odd_rows({"x": rows, "y": rows[:1]}) == {"x": [1, 3]}


# ---- coming in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_refused(tmp_path, bad, suffix):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, **TRUNK).state_dict()
    spoil(state["blocks.3.mlp.fc2.weight"], bad)
    file = tmp_path / f"w{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    with pytest.raises(WeightsError, match=r"w\.\w+: blocks\.3\.mlp\.fc2\.weight holds 1 of 9216 values that") as error:
        gn.backbone("vit_tiny_patch16_224", str(file), options=TRUNK)
    assert "\n" not in str(error.value)
    state["blocks.3.mlp.fc2.weight"] = torch.zeros(48, 192)
    spoil(state["norm.weight"], bad)  # which no map depends on, so the trunk does not have it
    torch.save(state, tmp_path / "w.pth")
    gn.backbone("vit_tiny_patch16_224", str(tmp_path / "w.pth"), options=TRUNK)


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.complex64])
def test_weights_of_other_than_floats_are_refused(tmp_path, kind):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, **TRUNK).state_dict()
    state["blocks.3.mlp.fc2.weight"] = state["blocks.3.mlp.fc2.weight"].to(kind)
    torch.save(state, tmp_path / "w.pth")
    name = str(kind).removeprefix("torch.")
    told = rf"w\.pth: blocks\.3\.mlp\.fc2\.weight holds {name}, the architecture float32; save it as float32"
    with pytest.raises(WeightsError, match=told):
        gn.backbone("vit_tiny_patch16_224", str(tmp_path / "w.pth"), options=TRUNK)
    state["blocks.3.mlp.fc2.weight"] = torch.ones(48, 192, dtype=torch.float64)  # the remedy, in any precision
    torch.save(state, tmp_path / "w.pth")
    gn.backbone("vit_tiny_patch16_224", str(tmp_path / "w.pth"), options=TRUNK)


def test_running_statistics_and_values_beyond_float32_are_refused(tmp_path):
    state = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    name = next(n for n in state if n.endswith("running_var"))
    whole = state[name].double()
    for value in (math.nan, 1e300):
        state[name] = whole.clone()
        spoil(state[name], value)
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=f"{name} holds 1 of"):
            gn.backbone("test_efficientnet", str(tmp_path / "w.pth"))


def test_a_finished_decoder_is_refused(tmp_path):
    from garnish.heads.segformer_names import DECODE_HEAD, read_decoder, write_decoder

    torch.manual_seed(0)
    model = gn.adapt(gn.backbone("garnish_b0"), gn.Frozen(), {"seg": TASKS["seg"]}, gn.SegFormerHead(channels=8))
    state = write_decoder(model.head("seg").state_dict(), "nvlabs")
    save_file(state, tmp_path / "whole.safetensors")
    assert read_decoder(str(tmp_path / "whole.safetensors"))
    spoil(state[f"{DECODE_HEAD}.linear_fuse.bn.running_mean"])
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"linear_fuse\.bn\.running_mean holds 1 of 8 values"):
        read_decoder(str(tmp_path / "w.safetensors"))


def stored_again(folder, values):
    """Replace a bundle's weights, with the sum that fits them: a bundle that an earlier version wrote."""
    import hashlib

    save_file(values, folder / "weights.safetensors")
    facts = json.loads((folder / "bundle.json").read_text())
    facts["sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(facts))
    (folder / "SHA256SUMS").unlink()  # as a version without sums left it


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_bundle_is_neither_written_nor_read(tmp_path, dtype):
    model = tiny(head=gn.SegFormerHead(channels=8))
    model.save(tmp_path / "b", dtype=dtype)
    former = load_file(tmp_path / "b/weights.safetensors")
    for name in ("heads.seg.norm.running_var", "heads.seg.classifier.bias", next(n for n in former if "lora_a" in n)):
        values = {n: t.clone() for n, t in former.items()}
        spoil(values[name])
        shutil.copytree(tmp_path / "b", tmp_path / name)
        stored_again(tmp_path / name, values)
        with pytest.raises(
            BundleError, match=f"{re.escape(name)} holds 1 of .* that are not finite; it is of a run that"
        ):
            gn.load(tmp_path / name, backbone=bare())
        tensor = model.own_tensors()[name]
        kept = tensor.detach().clone()
        spoil(tensor)
        with pytest.raises(BundleError, match=f"^{re.escape(name)} holds 1 of .*; nothing was saved") as error:
            model.save(tmp_path / "b", dtype=dtype)
        assert "\n" not in str(error.value)
        with pytest.raises(BundleError, match="nothing was written"):
            gn.export_peft(model, tmp_path / "peft")
        tensor.data.copy_(kept)
    after = load_file(tmp_path / "b/weights.safetensors")
    assert all(torch.equal(t, former[n]) for n, t in after.items()) and not (tmp_path / "peft").exists()


def bare():
    torch.manual_seed(3)
    return gn.backbone("vit_tiny_patch16_224", options=TRUNK)


def test_a_task_that_is_finite_can_still_be_saved(tmp_path):
    model = tiny()
    spoil(model.head_tensors("seg")["heads.seg.projections.0.weight"])
    model.save(tmp_path / "depth", tasks=["depth"])
    assert list(gn.load(tmp_path / "depth", backbone=bare()).tasks) == ["depth"]


def test_pefts_tensors_are_refused(tmp_path):
    model = tiny(gn.LoRA(rank=2))
    gn.export_peft(model, tmp_path / "peft")
    for file in ("adapter_model.safetensors", "heads.safetensors"):
        whole = load_file(tmp_path / "peft" / file)
        values = {n: t.clone() for n, t in whole.items()}
        spoil(next(t for t in values.values() if t.is_floating_point()))
        save_file(values, tmp_path / "peft" / file)
        with pytest.raises(BundleError, match=rf"{file}: \S+ holds 1 of \d+ values that are not finite"):
            gn.import_peft(tmp_path / "peft", backbone=bare())
        save_file(whole, tmp_path / "peft" / file)
    gn.import_peft(tmp_path / "peft", backbone=bare())


def test_nothing_is_merged_into_what_is_not_finite(tmp_path):
    model = tiny(gn.LoRA(rank=2))
    spoil(next(t for n, t in model.own_tensors().items() if n.startswith("adapters.") and "lora_b" in n))
    with pytest.raises(BundleError):
        gn.merge(model, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# ---- coming out -------------------------------------------------------------------------------------------------


def test_predict_and_evaluate_tell_the_tensor_and_leave_other_tasks_alone():
    model, data = tiny(), Blobs(every(3))
    spoil(model.head_tensors("seg")["heads.seg.projections.0.weight"])
    image = data[0].image
    held = r"the model's heads\.seg\.projections\.0\.weight holds 1 of \d+ values that are not finite; train it again"
    with pytest.raises(GarnishError, match=f"^picture: {held}"):
        model.predict(image)
    assert list(model.predict(image, ["depth"]).maps) == ["depth"]
    with pytest.raises(GarnishError, match=f"^evaluate: {held}") as error:
        gn.evaluate(model, data)
    assert "\n" not in str(error.value)
    assert math.isfinite(gn.evaluate(model, data, tasks=["depth"])["depth"]["rmse"])


@pytest.mark.parametrize("where", ["adapter", "trunk", "mean", "std"])
def test_what_attention_makes_finite_is_told(where):
    """On a CPU, attention makes zeros of rows of scores that are NaN, so that the outputs alone do not tell."""
    model, data = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"depth": gn.Depth()}), Blobs(every(2))
    image = data[0].image
    model.predict(image)
    tensors = model.all_tensors()
    name = {"adapter": "attn.q.0.lora_b", "trunk": "blocks.0.attn.q.weight"}.get(where, where)
    name = next(full for full in tensors if full.endswith(name))
    with torch.no_grad():
        tensors[name].view(-1)[0] = float("nan")
    for _ in range(2):
        with pytest.raises(GarnishError, match=rf"^picture: the model's {re.escape(name)} holds 1 of"):
            model.predict(image)
    with pytest.raises(GarnishError, match=rf"^evaluate: the model's {re.escape(name)} holds 1 of"):
        gn.evaluate(model, data)
    with pytest.raises(GarnishError):  # and no KeyError
        model.predict(image, ["another"])
    with torch.no_grad():
        tensors[name].view(-1)[0] = 0.5
    assert bool(model.predict(image)["depth"].isfinite().all())


@pytest.mark.parametrize("method", [gn.LoRA(rank=2, per_task=True), gn.BitFit(), gn.VPT(prompts=2), gn.SideTuning()])
def test_tensors_are_read_again_only_where_one_was_written(method, monkeypatch):
    model, image = tiny(method), Blobs(every(1))[0].image
    held = {id(t) for t in (*model.parameters(), *model.buffers())}
    assert all(id(tensor) in held for tensor in model.all_tensors().values())
    reads = []
    whole = finite.is_finite
    monkeypatch.setattr(finite, "is_finite", lambda tensor: reads.append(tensor) or whole(tensor))
    model.predict(image)
    kept = {id(tensor) for tensor in reads} & held
    assert kept >= {id(t) for n, t in model.all_tensors().items() if n not in ("mean", "std")}
    reads.clear()
    model.predict(image, ["seg"])
    assert not kept & {id(tensor) for tensor in reads}
    written = next(iter(model.trained_parameters().values()))
    with torch.no_grad():
        written.add_(0)
    model.predict(image)
    again = {id(tensor) for tensor in reads} & kept
    assert id(written) in again and len(again) < len(kept)  # those of one owner or head
    reads.clear()
    model.double().half().float().predict(image)  # buffers are replaced
    assert {id(t) for t in model.parameters()} <= {id(tensor) for tensor in reads}


def test_an_overflow_of_finite_tensors_is_told_apart(tmp_path):
    model, image = tiny().half(), Blobs(every(1))[0].image
    with torch.no_grad():
        for name, tensor in model.head_tensors("seg").items():
            tensor.fill_(6e4 if "bias" in name else 100)
    with pytest.raises(GarnishError, match=r"'seg' is not finite, though all .* are finite.*: run it in float32"):
        model.predict(image)
    assert bool(model.float().predict(image)["seg"].max() < 3)  # the remedy


def test_measuring_by_picture_tells_it_too():
    from garnish.comparing.analysis.totals_by_picture import evaluate_by_picture

    model = tiny()
    spoil(model.head_tensors("depth")["heads.depth.projections.0.bias"])
    with pytest.raises(GarnishError, match="'depth' is not finite on picture blob0"):
        evaluate_by_picture(model, Blobs(every(2)))


class Keyed(Blobs):
    """Pictures that a cache may keep."""

    def key(self, index: int) -> str | None:
        return f"{index}"


# ---- training ---------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_finite_is_not_trained():
    model = tiny()
    spoil(model.backbone.frozen_tensors()["stages.1.blocks.0.mlp.fc1.weight"])
    with pytest.raises(OptionError, match=r"train: the model's .*fc1.*holds 1 of 9216 values"):
        fit(model, Blobs(every(4)), steps=1, **SHORT)


def test_the_largest_rate_ends_in_an_error(tmp_path):
    out, data = tmp_path / "run", Blobs(every(4))
    with pytest.raises(
        GarnishError, match=r"^train: no evaluation had finite outputs.*; lower lr \(1e\+30\).*; the last checkpoint"
    ) as error:
        fit(tiny(), data, data, out=out, steps=1, lr=1e30, **SHORT)
    assert "\n" not in str(error.value)
    assert all_finite(out / "last/state.safetensors") and not (out / "best").exists()
    with pytest.raises(GarnishError, match="no evaluation"):  # also where there is no folder to look at
        fit(tiny(), data, data, steps=1, lr=1e30, **SHORT)


def planted(monkeypatch, at, name, value=math.nan):
    """Spoil a tensor of the model by the update of step ``at`` + 1."""
    update = Run.update

    def spoiling(self):
        done = update(self)
        if self.state.step == at:
            spoil(self.model.own_tensors()[name], value)
        return done

    monkeypatch.setattr(Run, "update", spoiling)


@pytest.mark.parametrize(
    "name", ["heads.depth.projections.0.weight", "heads.depth.norm.running_mean", "heads.depth.norm.running_var"]
)
def test_what_diverged_just_before_an_evaluation_replaces_nothing(tmp_path, monkeypatch, name):
    out = tmp_path / "run"
    planted(monkeypatch, 3, name)
    options = {"steps": 8, "eval_every": 2, "save_every": 1, "head_lr": 1e-4, **SHORT}
    head = gn.SegFormerHead(channels=8)
    with pytest.raises(GarnishError, match=rf"^step 4: {name} holds 1 of"):
        fit(tiny(head=head), Blobs(every(4)), Blobs(every(2), seed=1), out=out, **options)
    assert json.loads((out / "best/bundle.json").read_text())["extra"]["step"] == 2
    assert all_finite(out / "best/weights.safetensors") and all_finite(out / "last/state.safetensors")
    assert load_state(out / "last/state.safetensors")[1]["state"]["step"] == 3
    monkeypatch.undo()  # last is usable: the run goes on as one that nothing happened to
    model = tiny(head=head)
    result = fit(model, Blobs(every(4)), Blobs(every(2), seed=1), resume=out, **options)
    whole = tiny(head=head)
    assert result.history == fit(whole, Blobs(every(4)), Blobs(every(2), seed=1), **options).history
    assert all(torch.equal(t, tensors_of(whole)[n]) for n, t in tensors_of(model).items())


def test_an_optimizer_that_overflows_is_not_saved(tmp_path):
    model = tiny()
    name = "heads.seg.projections.0.weight"
    model.own_tensors()[name].register_hook(lambda grad: grad + 1e25)  # finite, its square is not
    with pytest.raises(GarnishError, match=rf"step 1: optimizer/{name}/exp_avg_sq holds"):
        fit(model, Blobs(every(4)), out=tmp_path / "run", steps=1, clip=None, **SHORT)
    assert all_finite(tmp_path / "run/last/state.safetensors")


def test_a_checkpoint_that_is_not_finite_is_not_resumed(tmp_path):
    out = fit(tiny(), Blobs(PARTIAL), out=tmp_path / "run", steps=2, **SHORT).out
    tensors, facts = load_state(out / "last/state.safetensors")
    spoil(tensors["optimizer/heads.seg.projections.0.weight/exp_avg"])
    save_state(out / "last/state.safetensors", tensors, facts)
    with pytest.raises(BundleError, match=r"optimizer/heads\.seg\S+/exp_avg holds 1 of .*; the run had diverged"):
        fit(tiny(), Blobs(PARTIAL), resume=out, steps=2, **SHORT)


def overflowing(monkeypatch, steps):
    """Depth's outputs overflow in the evaluations of these steps."""
    place, evaluate = run.start_placed, Run.evaluate
    now = {"step": 0}

    def placed(model, *given):
        step = place(model, *given)
        module = model.head("depth")
        forward = module.forward
        module.forward = lambda maps: forward(maps) * (math.inf if now["step"] in steps else 1.0)
        return step

    def noted(self):
        now["step"] = self.state.step
        evaluate(self)
        now["step"] = 0

    monkeypatch.setattr(run, "start_placed", placed)
    monkeypatch.setattr(Run, "evaluate", noted)


def test_an_evaluation_that_is_not_finite_is_told_and_never_ranked(tmp_path, monkeypatch):
    overflowing(monkeypatch, {1, 3})
    data, val = Blobs(every(4)), Blobs(every(2), seed=1)
    result = fit(tiny(), data, val, out=tmp_path / "run", steps=3, eval_every=1, **SHORT)
    assert result.best_step == 2
    scores = [entry["score"] for entry in result.history]
    assert scores[0] == scores[2] == -math.inf and math.isfinite(scores[1])
    for entry in (result.history[0], result.history[2]):
        assert all(math.isnan(v) for v in entry["metrics"]["depth"].values())
        assert math.isfinite(entry["metrics"]["seg"]["miou"])
    told = "the output of task 'depth' is not finite on picture blob0 and 1 more, though all"
    assert [line.split(told)[0] for line in result.warnings] == ["step 1: ", "step 3: "]
    facts = json.loads((tmp_path / "run/best/bundle.json").read_text())
    assert facts["extra"]["step"] == 2 and facts["metrics_rounding"]["depth"]["rmse"] is not None


def test_a_run_without_one_finite_evaluation_is_an_error(tmp_path, monkeypatch):
    overflowing(monkeypatch, {1, 2})
    with pytest.raises(GarnishError, match=r"no evaluation had finite outputs, so no bundle was kept; lower lr"):
        fit(tiny(), Blobs(every(4)), Blobs(every(2)), out=tmp_path / "run", steps=2, eval_every=1, **SHORT)
    assert not (tmp_path / "run/best").exists() and all_finite(tmp_path / "run/last/state.safetensors")


def test_a_best_bundle_beyond_float16_is_stored_wider_and_told(tmp_path):
    model = tiny()
    name = "heads.seg.projections.0.weight"
    spoil(model.own_tensors()[name], 1e5)
    result = fit(model, Blobs(every(4)), Blobs(every(2)), out=tmp_path / "run", steps=1, lr=1e-6, **SHORT)
    (line,) = result.warnings
    assert line.startswith(f"step 1: {name}: its largest value 1e+05 is beyond float16; ") and "float32" in line
    assert json.loads((tmp_path / "run/best/bundle.json").read_text())["dtype"] == "float32"
    loaded = gn.load(tmp_path / "run/best", backbone=bare())
    assert all(torch.equal(t, tensors_of(model)[n]) for n, t in tensors_of(loaded).items())


def test_a_picture_that_is_not_finite_is_not_kept_in_the_cache(tmp_path, monkeypatch):
    from garnish.training import feature_cache as features

    begin, spoilt = features.begin, []

    def odd(*args):
        state = begin(*args)
        if not spoilt:
            spoilt.append(state)
            spoil(state.maps[0] if state.x is None else state.x)
        return state

    monkeypatch.setattr(features, "begin", odd)
    options = {"steps": 4, "variants": 1, "cache": tmp_path, **SHORT, "batch_size": 1}
    with pytest.raises(GarnishError, match="step 1: the loss of task"):
        fit(tiny(gn.Partial(blocks=1)), Keyed(every(2)), **options)
    assert not list(tmp_path.rglob("*.safetensors"))
    fit(tiny(gn.Partial(blocks=1)), Keyed(every(2)), **options)


def test_the_command_ends_in_one_line(tmp_path, capsys):
    from garnish.cli import main

    words = "train --data scenes --data.train 4 --data.val 2 --data.size 32 --backbone garnish_b0 --adapter Frozen"
    given = [*words.split(), "--train.lr", "1e30", "--train.steps", "1", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(given) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: seg: no pixel")]
    assert len(lines) == 2 and "step 1: " in lines[0] and "not finite" in lines[0]
    assert lines[1].startswith("garnish: train: no evaluation had finite outputs")
    assert not (tmp_path / "run/best").exists()
