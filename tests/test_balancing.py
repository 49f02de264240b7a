"""How several losses become one: the formulas, what is learnt and kept, and how recipes name it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

import garnish as gn
import tiny as tiny_options
from garnish import registry
from garnish.balancing.balancing import Balance, balancing_of
from garnish.balancing.fixed import Fixed
from garnish.bundles.checkpoint import load_state
from garnish.cli import main
from garnish.data.dataset import collate
from garnish.errors import OptionError
from garnish.recipes.recipe import read_recipe
from garnish.training.fit import fit
from garnish.training.processes import make_fabric
from garnish.training.scalars import read_rows
from garnish.training.step_losses import MultiTaskLoss
from garnish.training.train_options import TrainOptions
from training_cases import PARTIAL, QUIET, TASKS, Blobs, every, tiny

SHORT = {"batch_size": 4, "check_pictures": 0, **QUIET}
ALL = {"seg": gn.Semantic(classes=3), "depth": gn.Depth(), "normals": gn.Normals(), "edges": gn.Edges()}
#: 1/2 for regression, 1 for classification
FACTORS = {"seg": 1.0, "depth": 0.5, "normals": 0.5, "edges": 1.0}
each = pytest.mark.parametrize("name", list(registry.classes("balancing")))


# ---- every way --------------------------------------------------------------------------------------------------


@each
def test_options_survive_lookup(name):
    made = tiny_options.example("balancing", name)
    assert balancing_of({"name": name, **registry.options_of(made)}) == made == balancing_of(name)
    with pytest.raises(OptionError, match="no_such_option"):
        balancing_of({"name": name, "no_such_option": 1})


@each
def test_any_tasks_of_a_step_give_a_loss(name):
    balance = tiny_options.example("balancing", name).build(ALL)
    assert isinstance(balance, Balance)
    for tasks in (["seg"], ["depth", "edges"], list(ALL)):
        balance.zero_grad(set_to_none=True)
        losses = {task: torch.tensor(1.5, requires_grad=True) for task in tasks}
        total = balance(losses)
        assert total.shape == () and total.isfinite()
        total.backward()
        assert all(loss.grad > 0 for loss in losses.values())
    balance.zero_grad(set_to_none=True)
    assert balance({"seg": torch.tensor(torch.nan)}).isnan(), "a fault is not hidden"


# ---- uncertainty ------------------------------------------------------------------------------------------------


def test_uncertainty_is_the_formula_of_the_paper():
    balance = gn.Uncertainty().build(ALL).double()
    generator = torch.Generator().manual_seed(0)
    values = {task: float(v) for task, v in zip(ALL, torch.rand(4, generator=generator), strict=True)}
    with torch.no_grad():
        for s in balance.log_variances.values():
            s.copy_(torch.randn((), generator=generator))
    sigma = {task: math.exp(float(s.detach()) / 2) for task, s in balance.log_variances.items()}
    # eq. 7: L / (2 σ²) + ln σ; eq. 10: L / σ² + ln σ
    expected = sum(FACTORS[t] * values[t] / sigma[t] ** 2 + math.log(sigma[t]) for t in ALL)
    losses = {t: torch.tensor(v, dtype=torch.float64, requires_grad=True) for t, v in values.items()}
    total = balance(losses)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    total.backward()
    for t, loss in losses.items():
        weight = FACTORS[t] / sigma[t] ** 2
        assert loss.grad.item() == pytest.approx(weight, rel=1e-12)
        assert balance.log_variances[t].grad.item() == pytest.approx(0.5 - weight * values[t], rel=1e-12)
        assert balance.learnt_weights()[t] == pytest.approx(weight, rel=1e-12)


def test_a_steady_loss_ends_at_a_half():
    values = {"seg": 3.0, "depth": 0.02, "normals": 0.4, "edges": 50.0}
    losses = {t: torch.tensor(v, dtype=torch.float64) for t, v in values.items()}
    for beside in (-0.1, 0.0, 0.1):
        balance = gn.Uncertainty().build(ALL).double()
        with torch.no_grad():
            for t, s in balance.log_variances.items():
                s.fill_(math.log(2 * FACTORS[t] * values[t]) + beside)
        balance(losses).backward()
        for t, s in balance.log_variances.items():
            assert s.grad.item() == pytest.approx(0.5 - 0.5 * math.exp(-beside), abs=1e-12)
            assert balance.learnt_weights()[t] * values[t] == pytest.approx(0.5 * math.exp(-beside), rel=1e-12)


def test_a_task_without_labels_keeps_its_s():
    balance = gn.Uncertainty().build(ALL)
    balance({"seg": torch.tensor(2.0), "depth": torch.tensor(0.0)}).backward()
    grads = {t: s.grad for t, s in balance.log_variances.items()}
    assert grads["normals"] is None and grads["edges"] is None, "no picture: its moments rest as well"
    assert grads["depth"] == 0, "a picture, but no labelled pixel"
    assert grads["seg"] == 0.5 - 2


def test_start_at_the_tasks_own_weights():
    assert gn.Uncertainty().build(ALL).learnt_weights() == FACTORS
    found = gn.Uncertainty(start="weights").build(ALL).learnt_weights()
    assert found == pytest.approx({t: task.loss_weight for t, task in ALL.items()}, rel=1e-6)
    with pytest.raises(OptionError, match=r"train\.balance\.start: weights, but the weight of task 'seg' is 0"):
        gn.Uncertainty(start="weights").build({"seg": gn.Semantic(classes=2, weight=0)})
    with pytest.raises(OptionError, match=r"Uncertainty\.start: expected one of zero, weights; got 'one'"):
        gn.Uncertainty(start="one")


def test_accumulated_parts_give_the_gradient_of_the_whole_batch():
    """All pixels have depth, so that the mean over two halves is the mean over the whole."""
    data, model = Blobs([["depth"]] * 4), tiny().double().eval()
    loss_of = MultiTaskLoss({"depth": TASKS["depth"]}, make_fabric(TrainOptions(steps=1, accelerator="cpu")))
    grads = []
    for size in (4, 2, 1):
        balance = gn.Uncertainty().build(TASKS).double()
        for first in range(0, 4, size):
            batch = collate([data[i] for i in range(first, first + size)])
            outputs = model(batch.images, batch.tasks_of_rows())
            (balance(loss_of(outputs, batch).losses) / (4 // size)).backward()
        grads.append(balance.log_variances["depth"].grad.item())
    assert grads[1:] == pytest.approx([grads[0]] * 2, abs=1e-6)  # sums are float32
    assert abs(grads[0]) > 1e-2


def test_a_run_that_accumulates_learns_the_s_of_large_batches():
    ends = []
    for size, parts in ((4, 1), (2, 2)):
        model, learnt = tiny(gn.LoRA(rank=2)).double(), gn.Uncertainty().build({"depth": TASKS["depth"]})
        with pytest.warns(UserWarning, match="seg shares with depth go on training"):
            model.freeze(["seg"])
        fit(model, Blobs(every(8)), steps=4, balance=learnt, **SHORT | {"batch_size": size, "accumulate": parts})
        ends.append(learnt.log_variances["depth"].detach())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=0)
    assert ends[0].abs() > 1e-4


# ---- runs -------------------------------------------------------------------------------------------------------


def s_of(folder) -> dict[str, torch.Tensor]:
    tensors, _ = load_state(folder / "last/state.safetensors")
    return {n: t for n, t in tensors.items() if n.startswith("extra/balance.log_variances.")}


def test_s_is_learnt_kept_resumed_and_logged_but_is_in_no_bundle(tmp_path):
    options = {"steps": 4, "save_every": 2, "balance": "Uncertainty", "log_every": 1, **SHORT}
    whole = fit(tiny(), Blobs(PARTIAL), out=tmp_path / "whole", **options)
    data = Blobs(PARTIAL)
    data.kill_at = 8
    with pytest.raises(SystemExit):
        fit(tiny(), data, out=tmp_path / "cut", **options)
    half = s_of(tmp_path / "cut")
    assert len(half) == 2 and all(s.abs() > 1e-5 for s in half.values())
    fit(tiny(), Blobs(PARTIAL), resume=tmp_path / "cut", **options)
    end, again = s_of(tmp_path / "whole"), s_of(tmp_path / "cut")
    assert end.keys() == again.keys() and all(torch.equal(end[n], again[n]) for n in end)
    assert all(not torch.equal(end[n], half[n]) for n in end)
    for file in (tmp_path / "whole/best").glob("*.safetensors"):
        assert not [n for n in load_file(file) if "balance" in n or "log_variance" in n]
    rows = read_rows(tmp_path / "whole/log/scalars.csv")
    last = end["extra/balance.log_variances.seg"]
    assert float(rows[-1]["weight/seg"]) == pytest.approx(math.exp(-last), rel=1e-6)
    assert whole.steps == 4
    with pytest.raises(OptionError, match=r"was started with train\.balance = Uncertainty, not None"):
        fit(tiny(), Blobs(PARTIAL), resume=tmp_path / "cut", **options | {"balance": None})


def test_ways_to_say_it_in_python():
    ends = []
    for said in ("Uncertainty", {"name": "Uncertainty"}, gn.Uncertainty(), gn.Uncertainty().build(TASKS), None):
        torch.manual_seed(0)
        model = tiny()
        fit(model, Blobs(every(4)), steps=2, lr=0.1, balance=said, **SHORT)
        ends.append(torch.cat([p.detach().reshape(-1) for p in model.trained_parameters().values()]))
    assert all(torch.equal(ends[0], end) for end in ends[1:4])
    assert not torch.equal(ends[0], ends[4])


def test_weights_by_task_are_fixed_ones():
    assert balancing_of({"seg": 2}) == Fixed(weights={"seg": 2.0}) == gn.Fixed(weights={"seg": 2.0})
    assert balancing_of(None) == Fixed()
    assert float(balancing_of({"edges": 2}).build(ALL)({"edges": torch.tensor(3.0)})) == 6
    assert float(balancing_of(None).build(ALL)({"edges": torch.tensor(3.0), "seg": torch.tensor(1.0)})) == 151


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Uncertanty", "train.balance: unknown balancing 'Uncertanty'; did you mean 'Uncertainty'?"),
        ({"name": "Uncertainty", "strat": 1}, "train.balance: unknown option 'strat'; did you mean 'start'?"),
        ({"name": "Uncertainty", "start": "x"}, "train.balance.start: expected one of zero, weights; got 'x'"),
        ({"seg": "abc"}, "train.balance.seg: expected a number from 0 to 1e+09, got 'abc'"),
        ({"seg": math.inf}, "train.balance.seg: expected a number from 0 to 1e+09, got inf"),
    ],
)
def test_faults_are_named_in_one_line(given, message):
    with pytest.raises(OptionError) as fault:
        TrainOptions(steps=1, balance=given)
    assert message in str(fault.value) and "\n" not in str(fault.value)


RECIPE = """\
backbone: {name: garnish_b0, weights: true}
tasks: [seg, depth]
data: {name: scenes, train: 2, val: 1, size: 32}
train: {steps: 1, batch_size: 1, workers: 0, accelerator: cpu, log: [csv], balance: Uncertainty}
"""


def test_recipes_and_the_command_line(tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"{RECIPE}out: {tmp_path / 'run'}\n")
    assert read_recipe(file).resolved()["train"]["balance"] == "Uncertainty"
    words = ["train", "--config", str(file), "--quiet"]
    assert main([*words, "--train.balance", "Uncertanty", "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--train.balance" in error and "did you mean 'Uncertainty'" in error
    assert not (tmp_path / "x").exists()
    options = ["--train.balance.name", "Uncertainty", "--train.balance.start", "weights"]
    plain = tmp_path / "plain.yaml"
    plain.write_text(RECIPE.replace(", balance: Uncertainty", ""))
    assert main(["train", "--config", str(plain), "--quiet", *options, "--out", str(tmp_path / "run")]) == 0
    assert set(s_of(tmp_path / "run")) == {f"extra/balance.log_variances.{t}" for t in ("seg", "depth")}
    assert s_of(tmp_path / "run")["extra/balance.log_variances.depth"].item() == pytest.approx(math.log(0.5), abs=2e-3)


def test_it_is_listed(capsys):
    assert main(["methods", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["balancing"] == ["Fixed", "Uncertainty"]
