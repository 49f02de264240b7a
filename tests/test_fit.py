"""Training: what moves and what does not, what is written, and what is said before, during and after."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torchvision import tv_tensors

import garnish as gn
from garnish.balancing.balancing import Balance
from garnish.balancing.fixed import FixedWeights
from garnish.bundles.bundle_json import read_bundle_json
from garnish.data.dataset import Sample, collate
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.errors import DataError, GarnishError, MissingExtraError, OptionError
from garnish.files.strict_yaml import read_yaml
from garnish.training.best_step import Ranking
from garnish.training.fit import fit
from garnish.training.float16_effect import holding
from garnish.training.gradients import JUDGED_AFTER, GradientWatch, gradients_of
from garnish.training.learning_rate import rate_factor
from garnish.training.optimizer import make_optimizer, seed_step
from garnish.training.processes import make_fabric
from garnish.training.progress import Progress
from garnish.training.run_state import recipe_for_bundle
from garnish.training.scalars import read_rows
from garnish.training.train_options import TrainOptions
from tiny import BACKBONES, backbone
from training_cases import PARTIAL, QUIET, TASKS, Blobs, every, tensors_of, tiny

SHORT = {"batch_size": 4, "check_pictures": 0, **QUIET}


# ---- learning ---------------------------------------------------------------------------------------------------


def test_it_learns_and_only_what_is_trained_moves():
    model, data = tiny(), Blobs(every(8))
    fingerprint, before = model.backbone.fingerprint(), tensors_of(model)
    first = gn.evaluate(model, data)
    result = fit(model, data, data, steps=60, lr=1e-2, eval_every=60, **SHORT)
    assert result.metrics["seg"]["miou"] > first["seg"]["miou"] + 0.15
    assert result.metrics["depth"]["rmse"] < 0.92 * first["depth"]["rmse"]
    assert gn.evaluate(model, data) == result.history[-1]["metrics"]
    assert model.backbone.fingerprint() == fingerprint
    assert all(not torch.equal(t, before[n]) for n, t in tensors_of(model).items())
    assert result.warnings == [] and result.stopped == "finished" and result.out is None


@pytest.mark.parametrize("short", [s for s in BACKBONES if s != "vit"])
def test_training_goes_on_after_an_evaluation(short):
    torch.manual_seed(0)
    model = gn.adapt(backbone(short), gn.LoRA(rank=2), TASKS, gn.SegFormerHead(channels=8))
    result = fit(model, Blobs(PARTIAL), Blobs(every(2), seed=1), steps=3, eval_every=1, **SHORT)
    assert [entry["step"] for entry in result.history] == [1, 2, 3]


def test_a_frozen_task_stays_bit_identical():
    model, image = tiny(), torch.rand(2, 3, 48, 64)
    model.add(gn.LoRA(rank=2), {"seg2": gn.Semantic(classes=3)}, freeze_others=True)
    with pytest.raises(DataError, match=r"blobs: has no labels of task 'seg2' .*freeze"):
        fit(model, Blobs(every(4)), steps=1, **SHORT)
    model = tiny()
    with pytest.warns(UserWarning, match="seg shares with depth go on training"):
        model.freeze(["seg"])
    model.eval()
    old = model(image, ["seg"])["seg"]
    head = {n: t.clone() for n, t in model.head_tensors("seg").items()}
    fit(model, Blobs(every(4)), steps=2, **SHORT)
    assert all(torch.equal(t, head[n]) for n, t in model.head_tensors("seg").items())
    model.freeze(["depth"])
    with pytest.raises(OptionError, match="nothing to train"):
        fit(model, Blobs(every(4)), steps=1, **SHORT)
    assert old.shape == (2, 3, 48, 64)


def test_accumulated_steps_equal_large_ones():
    ends = []
    for size, parts in ((4, 1), (2, 2)):
        model = tiny(gn.LoRA(rank=2)).double()
        with pytest.warns(UserWarning, match="seg shares with depth go on training"):
            model.freeze(["seg"])  # all depth pixels are labelled, so the mean of means is the mean
        fit(model, Blobs(every(8)), steps=4, **SHORT | {"batch_size": size, "accumulate": parts})
        ends.append(tensors_of(model))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-6, atol=1e-9)


def test_checkpointing_changes_nothing_but_memory():
    ends = []
    for checkpointing in (False, True):
        model = tiny()  # with dropout: what is recomputed must drop the same
        fit(model, Blobs(PARTIAL), steps=3, checkpointing=checkpointing, **SHORT)
        assert model.backbone.memory == "lean"
        ends.append(tensors_of(model))
    assert all(torch.equal(t, ends[1][n]) for n, t in ends[0].items())


def test_bfloat16_products_keep_float32_parameters(caplog):
    caplog.set_level("INFO")
    model = tiny()
    result = fit(model, Blobs(PARTIAL), Blobs(every(2)), steps=2, precision="bf16-mixed", **SHORT)
    assert all(t.dtype == torch.float32 for t in tensors_of(model).values() if t.is_floating_point())
    assert math.isfinite(result.metrics["depth"]["rmse"])
    assert not [record for record in caplog.records if "Mixed Precision" in record.getMessage()]
    with pytest.raises(OptionError, match="16-mixed needs a GPU"):
        fit(model, Blobs(PARTIAL), steps=2, precision="16-mixed", accelerator="cpu", **SHORT)


def test_dropout_is_a_function_of_seed_step_part_and_rank():
    draws = []
    for key in ((0, 1, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1)):
        seed_step(*key)
        draws.append(torch.rand(8))
    assert torch.equal(draws[0], draws[1])
    assert all(not torch.equal(draws[0], other) for other in draws[2:])


class Learnt(Balance):
    """Σ e^(−s) loss + s, s learnt (Kendall et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(2))

    def forward(self, losses):
        return sum((-s).exp() * losses[t] + s for s, t in zip(self.s, ("seg", "depth"), strict=True) if t in losses)


def test_another_balance_is_trained_and_resumed(tmp_path):
    ends = []
    for cut in (None, 2):
        balance, out = Learnt(), tmp_path / f"run{cut}"
        options = {"steps": 4, "save_every": 2, **SHORT}
        if cut:
            data = Blobs(PARTIAL)
            data.kill_at = 4 * cut
            with pytest.raises(SystemExit):
                fit(tiny(), data, out=out, balance=Learnt(), **options)
        fit(tiny(), Blobs(PARTIAL), **{"resume" if cut else "out": out}, balance=balance, **options)
        ends.append(balance.s.detach())
    assert ends[0].abs().min() > 1e-4
    assert torch.equal(*ends)


def test_fixed_weights():
    losses = {"seg": torch.tensor(2.0), "depth": torch.tensor(3.0)}
    assert float(FixedWeights({"seg": gn.Semantic(classes=3, weight=0.5), "depth": gn.Depth()})(losses)) == 4
    assert float(FixedWeights(TASKS, {"depth": 10})({"depth": losses["depth"]})) == 30
    with pytest.raises(OptionError, match=r"balance: no task 'sag'.*did you mean 'seg'"):
        FixedWeights(TASKS, {"sag": 1})


# ---- gradients --------------------------------------------------------------------------------------------------


class ZeroPair(Adapter):
    """x → y + B A x with both factors zero: it never starts learning."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(2, width_in))
        self.b = nn.Parameter(torch.zeros(width_out, 2))

    def after(self, x, y, ctx):
        return y + x @ self.a.T @ self.b.T


@dataclass(frozen=True, kw_only=True)
class Dead(Method):
    def plan(self, backbone) -> Plan:
        return Plan({"stages.1.blocks.0.mlp.fc1": ZeroPair(48, 192)})


def test_two_zero_matrices_are_named():
    result = fit(tiny([gn.LoRA(rank=2), Dead()]), Blobs(every(8)), steps=4, **SHORT)
    assert len(result.warnings) == 2  # one a task; LoRA beside it, whose factor B starts at zero, is not named
    for task, line in zip(TASKS, result.warnings, strict=True):
        name = "adapters.seg+depth.stages.1.blocks.0.mlp.fc1.1"
        assert line.startswith(f"2 trained tensors ({name}.a, {name}.b) got only zero gradients of task '{task}'")
    assert fit(tiny(), Blobs(every(8)), steps=1, **SHORT).warnings == []


def test_factors_that_wait_for_each_other_are_not_named():
    result = fit(tiny(gn.MTLoRA(rank=2, task_rank=2, dropout=0.0)), Blobs(every(8)), steps=4, **SHORT)
    last = "adapters.seg+depth.stages.3.blocks.0.mlp.fc2.0"  # as published, nothing trains the shared update there
    named = f"2 trained tensors ({last}.lora_a, {last}.lora_b)"
    assert [line.split(" got ")[0] for line in result.warnings] == [named] * len(TASKS)


def test_a_tensor_that_one_task_never_reaches_is_named():
    model = tiny(gn.LoRA(rank=2))
    watch = GradientWatch(model, list(TASKS), make_fabric(TrainOptions(steps=1, accelerator="cpu")))
    lost = "heads.depth.norms.0.weight"
    for step in range(JUDGED_AFTER):
        outputs = model(torch.rand(1, 3, 48, 64))
        # depth's head hides a norm, though the loss of seg reaches everything that both share
        model.head("depth").norms[0].weight.requires_grad_(step > 5)
        outputs["depth"] = model(torch.rand(1, 3, 48, 64), ["depth"])["depth"]
        model.head("depth").norms[0].weight.requires_grad_(True)
        watch.observe({name: (out**2).mean() for name, out in outputs.items()})
        assert watch.count == dict.fromkeys(TASKS, step)
        lines = watch.end_step()
        with torch.no_grad():
            for parameter in model.trained_parameters().values():
                parameter.add_(0.01)
    assert watch.silent("seg") == ([], []) and watch.silent("depth") == ([lost], [])
    assert [line.split(" of task")[0] for line in lines] == [f"1 trained tensors ({lost}) got no gradient"]
    watch.observe({"seg": torch.zeros((), requires_grad=True)})  # judged: not looked at again
    assert watch.end_step() == []


def test_gradients_of_one_task_leave_those_of_the_step_alone():
    a, b = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(1.0))
    loss = a**2
    found = gradients_of(loss, {"a": a, "b": b})
    assert found["a"] == 4 and found["b"] is None
    assert a.grad is None
    loss.backward()
    assert a.grad == 4


# ---- faults -----------------------------------------------------------------------------------------------------


class Told(Blobs):
    """Remembers which picture was read last."""

    last = -1

    def __getitem__(self, index: int) -> Sample:
        self.last = index
        return super().__getitem__(index)


def test_an_infinite_loss_names_step_task_and_picture(tmp_path):
    model, data = tiny(), Told(every(8))
    # In place of a network that diverges on one picture: metres that float32 cannot hold.
    model.head("depth").register_forward_hook(lambda module, given, out: out + 3e38 * (data.last == 5))
    with pytest.raises(GarnishError, match=r"step [1-8]: the loss of task 'depth' is inf; pictures: blob5;") as error:
        fit(model, data, out=tmp_path / "run", steps=8, save_every=1, **SHORT | {"batch_size": 1})
    assert "\n" not in str(error.value)
    step = int(str(error.value).split(":")[0].split()[1])
    from garnish.bundles.checkpoint import load_state

    tensors, facts = load_state(tmp_path / "run/last/state.safetensors")
    assert facts["state"]["step"] == step - 1
    assert all(bool(t.isfinite().all()) for t in tensors.values())


def test_gradients_that_are_not_finite_stop_the_run():
    model = tiny()
    model.head("seg").projections[0].weight.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(GarnishError, match=r"step 1: the gradients are not finite, first that of heads\.seg\.proj"):
        fit(model, Blobs(every(4)), steps=2, **SHORT)


class BadIds(Blobs):
    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return Sample(sample.image, {"seg": tv_tensors.Mask(torch.full(sample.size, 7))}, sample.name)


@pytest.mark.parametrize("value", [object(), {1, 2}, [3, b"x"]], ids=["object", "set", "bytes"])
def test_a_recipe_that_cannot_be_stored_is_refused_before_anything_is_made(tmp_path, value):
    with pytest.raises(OptionError, match=r"recipe\.data(\[1\])?: .* cannot be stored"):
        fit(tiny(), Blobs(every(4)), steps=1, recipe={"data": value}, out=tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


def test_numbers_of_a_recipe_that_json_lacks_are_stored_as_text():
    stored = recipe_for_bundle({"base": "x", "data": {"invalid": [math.nan, -math.inf, 3]}})
    assert stored == {"data": {"invalid": ["nan", "-inf", 3]}}
    assert [float(text) for text in stored["data"]["invalid"][1:]] == [-math.inf, 3.0]


def test_bad_labels_stop_it_before_the_first_step(tmp_path):
    model = tiny()
    before = tensors_of(model)
    with pytest.raises(DataError, match=r"blob0: label ids 7 \(3072 pixels\), but the 3 classes are 0 to 2"):
        fit(model, Blobs(every(4)), BadIds(every(4)), out=tmp_path / "run", steps=2, **SHORT | {"check_pictures": 9})
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(t, before[n]) for n, t in tensors_of(model).items())


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"garnish\[tensorboard\]"):
        fit(tiny(), Blobs(every(4)), out=tmp_path / "run", steps=1, **SHORT | {"log": ("tensorboard",)})
    assert not (tmp_path / "run").exists()
    fit(tiny(), Blobs(every(4)), out=tmp_path / "run", steps=1, **SHORT)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": None}, "set exactly one of the two"),
        ({"epochs": 1.0}, "set exactly one of the two"),
        ({"batch_size": 0}, "batch_size: expected a whole number from 1 to 65,536 or auto, got int 0"),
        ({"lr": -1.0}, r"lr: expected a number above 0 to 1e\+30, got float -1.0"),
        ({"lr": math.nan}, "lr: expected a number above 0 to 1e.30, got float nan"),
        ({"schedule": "step"}, "expected one of cosine, poly, constant; got 'step'"),
        ({"precision": "8"}, "expected one of 32-true"),
        ({"strategy": "fsdp"}, "fsdp is refused"),
        ({"log": ("wanbd",)}, "'wanbd'; choose from tensorboard, csv, wandb, mlflow, comet, or name the class"),
        ({"balance": {"seg": -1.0}}, "train.balance.seg: expected a number from 0 to 1e.09, got -1"),
        ({"patience": 2}, "needs validation data"),
        ({"accelerator": "abacus"}, "choose what this machine has"),
    ],
)
def test_options_out_of_range(given, message):
    with pytest.raises(OptionError, match=message) as error:
        fit(tiny(), Blobs(every(4)), **{"steps": 1, **SHORT, **given})
    assert "\n" not in str(error.value)


def test_fit_has_the_options_and_their_defaults():
    parameters = inspect.signature(fit).parameters
    for option in dataclasses.fields(TrainOptions):
        assert parameters[option.name].default == option.default, option.name
        assert (fit.__doc__ or "").count(f"\n    {option.name}: ") == 1, option.name
        assert f"    {option.name}: " in (TrainOptions.__doc__ or "")
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    with pytest.raises(OptionError, match=r"fit: unknown argument 'step'; did you mean 'steps'\?"):
        fit(tiny(), Blobs(every(4)), step=1)
    with pytest.raises(OptionError, match=r"fit: lr: expected a number above 0 to 1e.30, got str 'fast'"):
        fit(tiny(), Blobs(every(4)), steps=1, lr="fast")


# ---- schedule and optimizer -------------------------------------------------------------------------------------


def test_learning_rate_is_a_function_of_the_step():
    cosine = TrainOptions(steps=100, warmup=10)
    assert [rate_factor(cosine, s, 100) for s in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1, 1])
    assert rate_factor(cosine, 55, 100) == pytest.approx(0.5)
    poly = TrainOptions(steps=100, warmup=0, schedule="poly")
    assert rate_factor(poly, 50, 100) == pytest.approx(0.5**0.9)
    assert rate_factor(TrainOptions(steps=9, schedule="constant"), 8, 9) == 1
    assert rate_factor(TrainOptions(steps=9), 0, 9) == 1  # too short to warm up


def test_steps_of_epochs():
    assert TrainOptions(epochs=2, accumulate=3).total_steps(100, 4, 2) == math.ceil(200 / 24)
    assert TrainOptions(epochs=0.001).total_steps(100, 4, 1) == 1


def test_decay_and_rates_by_tensor():
    model = tiny(head=gn.SegFormerHead(channels=8))
    named = model.trained_parameters()
    optimizer = make_optimizer(named, TrainOptions(steps=1, lr=0.1, head_lr=0.2, weight_decay=0.3))
    facts = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(facts) == len(named)
    for name, parameter in named.items():
        rate = 0.2 if name.startswith("heads.") else 0.1
        assert facts[id(parameter)] == (rate, 0.3 if parameter.ndim > 1 else 0.0), name


# ---- what is written --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a folder, and its model."""
    model, val = tiny(), Blobs(every(4), seed=1)
    options = {"steps": 20, "eval_every": 5, "log_every": 5, "lr": 1e-2}
    out = tmp_path_factory.mktemp("runs") / "run"
    log = ("csv", "tensorboard")
    result = fit(
        model, Blobs(PARTIAL), val, out=out, recipe={"data": "blobs", "note": "1e-3"}, **options, **SHORT | {"log": log}
    )
    return model, val, result


def test_the_run_folder(run):
    _, _, result = run
    names = sorted(str(p.relative_to(result.out)) for p in result.out.rglob("*") if p.is_file())
    assert [n for n in names if "tfevents" not in n] == [
        ".lock",
        "args.yaml",
        "best/SHA256SUMS",
        "best/bundle.json",
        "best/weights.safetensors",
        "details/depth_by_distance.csv",
        "details/seg_classes.csv",
        "details/seg_confusion.csv",
        "details/seg_confusion.png",
        "details/totals.safetensors",
        "index.html",
        "last/earlier.safetensors",
        "last/state.safetensors",
        "log/scalars.csv",
        "results.csv",
        *(f"sheets/step_{step:06d}.jpg" for step in (5, 10, 15, 20)),
    ]
    assert len([n for n in names if n.startswith("log/events.out.tfevents")]) == 1
    assert read_yaml(result.out / "args.yaml") == {"data": "blobs", "note": "1e-3"}
    rows = read_rows(result.out / "results.csv")
    assert [int(r["step"]) for r in rows] == [5, 10, 15, 20]
    assert float(rows[-1]["seg.miou"]) == pytest.approx(result.history[-1]["metrics"]["seg"]["miou"], rel=1e-5)
    rows = read_rows(result.out / "log/scalars.csv")
    assert [int(r["step"]) for r in rows] == [5, 10, 15, 20]
    weighted = [float(r["loss/seg"] or 0) + float(r["loss/depth"] or 0) for r in rows]
    assert [float(r["loss"]) for r in rows] == pytest.approx(weighted, rel=1e-5)


def test_the_best_bundle_and_what_its_rounding_does(run):
    _, val, result = run
    facts = json.loads((result.out / "best/bundle.json").read_text())
    assert result.best_step == facts["extra"]["step"]
    assert facts["metrics"] == result.metrics
    torch.manual_seed(3)
    options = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
    trunk = gn.backbone("vit_tiny_patch16_224", options=options)
    stored = gn.evaluate(gn.load(result.out / "best", backbone=trunk), val)
    for task, values in stored.items():
        for name, value in values.items():
            change = facts["metrics_rounding"][task][name]
            assert result.metrics[task][name] + change == pytest.approx(value, rel=1e-6, abs=1e-9), (task, name)
    assert any(abs(v) > 0 for values in facts["metrics_rounding"].values() for v in values.values())


def test_rounding_is_measured_on_some_of_many_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("garnish.training.validation._ROUNDING_PICTURES", 3)
    model, train, val = tiny(), Blobs(every(4)), Blobs(every(7), seed=1)
    options = {"steps": 4, "eval_every": 4, "lr": 1e-2, **SHORT}  # the best step is the last one, which the model holds
    result = fit(model, train, val, out=tmp_path / "run", **options)
    change = read_bundle_json(result.out / "best")["metrics_rounding"]
    whole, some = gn.evaluate(model, val), gn.evaluate(model, val, limit=3)
    assert result.metrics == {t: pytest.approx(v, rel=1e-6) for t, v in whole.items()}
    with holding(model, result.out / "best"):
        stored = gn.evaluate(model, val, limit=3)
    for task, values in stored.items():
        for name, value in values.items():
            assert change[task][name] == pytest.approx(value - some[task][name], rel=1e-6, abs=1e-9), (task, name)
    assert 0 < abs(change["depth"]["rmse"]) < 0.1 * abs(some["depth"]["rmse"] - whole["depth"]["rmse"])
    fit(tiny(), train, val, resume=result.out, **options)  # what was reached on them is kept with the run
    assert read_bundle_json(result.out / "best")["metrics_rounding"] == change


def test_a_folder_is_never_written_over(tmp_path):
    outs = [fit(tiny(), Blobs(every(4)), out=tmp_path / "run", steps=1, **SHORT).out for _ in range(3)]
    assert [o.name for o in outs] == ["run", "run-2", "run-3"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot be made"):
        fit(tiny(), Blobs(every(4)), out=tmp_path / "file/run", steps=1, **SHORT)


# ---- the best, and stopping early -------------------------------------------------------------------------------


def test_ranking():
    both = Ranking(TASKS)
    one = {"seg": {"miou": 0.4}, "depth": {"rmse": 2.0}}
    assert both.score({"seg": {"miou": 0.5}, "depth": {"rmse": 2.2}}) > both.score(one)  # +25 % against −10 %
    assert both.score({"seg": {"miou": 0.38}, "depth": {"rmse": 1.5}}) > both.score(one)
    assert both.score({"seg": {"miou": 0.0}, "depth": {"rmse": math.nan}}) < both.score(one)
    assert both.score({"seg": {"miou": math.nan}, "depth": {"rmse": math.nan}}) == -math.inf
    assert Ranking(TASKS, "depth").score(one) == -2
    assert Ranking(TASKS, "seg.miou").score(one) == 0.4
    assert Ranking(TASKS, "depth.abs_rel:min").score({"depth": {"abs_rel": 0.3}}) == -0.3
    for by, message in (("sag", "no task 'sag'"), ("depth.delta1", "delta1:max or"), ("seg.miou:up", "ends in 'up'")):
        with pytest.raises(OptionError, match=message):
            Ranking(TASKS, by)
    with pytest.raises(OptionError, match="has no metric 'iou'"):
        Ranking(TASKS, "seg.iou:max").score(one)


def test_patience(tmp_path):
    options = {"steps": 50, "eval_every": 5, "patience": 2, "lr": 1e-30, "out": tmp_path / "run"}
    result = fit(tiny(), Blobs(every(4)), Blobs(every(2)), **options, **SHORT)
    assert (result.stopped, result.steps, result.best_step) == ("early", 15, 5)
    again = fit(tiny(), Blobs(every(4)), Blobs(every(2)), resume=result.out, **{**options, "out": None}, **SHORT)
    assert (again.stopped, again.steps, again.history) == ("early", 15, result.history)


# ---- what is said -----------------------------------------------------------------------------------------------


def test_a_line_every_tenth_where_there_is_no_terminal(capsys):
    with Progress(1000) as progress:
        for step in range(1, 1001):
            progress.step(step, {"seg": 0.5}, 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1].startswith("step 1000/1000  loss 0.5  seg 0.5  ") and lines[-1].endswith(" pictures/s  0:00 left")


def test_introduction_and_licence(capsys):
    model = tiny()
    model.backbone.licence = "CC BY-NC 4.0"
    result = fit(model, Blobs(every(4)), Blobs(every(2)), steps=2, **SHORT | {"progress": True})
    said = capsys.readouterr().err
    assert said.startswith(repr(model))
    assert "4 pictures, 2 steps of 4 pictures" in said
    assert "seg miou" in said
    assert len(result.warnings) == 1 and "non-commercial (CC BY-NC 4.0)" in result.warnings[0]
    assert f"warning: {result.warnings[0]}" in said


def test_a_batch_without_any_label_is_no_fault():
    model = tiny()
    before = tensors_of(model)
    result = fit(model, Blobs([[], ["seg"], [], ["depth"]]), steps=4, **SHORT | {"batch_size": 1})
    assert result.steps == 4
    assert any(not torch.equal(t, before[n]) for n, t in tensors_of(model).items())
    assert collate([Blobs([[]])[0]]).tasks_of_rows() == [[]]
