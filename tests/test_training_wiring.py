"""That the loop hands each option and number on to what is tested apart: rates, norms, seeds, steps, the best."""

from __future__ import annotations

import json
import math

import pytest
import torch

import garnish as gn
from garnish.training.best_step import Ranking
from garnish.training.fit import fit
from garnish.training.run import Run
from garnish.training.scalars import read_rows
from training_cases import PARTIAL, QUIET, Blobs, every, tensors_of, tiny

SHORT = {"batch_size": 4, "check_pictures": 0, **QUIET}
LONGER = {"steps": 6, "eval_every": 2, "lr": 1e-2, **SHORT}


def scored(monkeypatch, scores):
    """Evaluations have these scores, whatever was measured."""
    left = list(scores)
    monkeypatch.setattr(Ranking, "score", lambda self, metrics: left.pop(0))


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.5, 0.2, 0.3], 2), ([0.2, 0.5, 0.3], 4), ([0.1, 0.3, 0.5], 6), ([0.5, 0.2, 0.5], 2), ([-math.inf] * 3, 2)],
)
def test_the_best_is_the_best_of_all(tmp_path, monkeypatch, scores, best):
    scored(monkeypatch, scores)
    model, val = tiny(), Blobs(every(3), seed=1)
    result = fit(model, Blobs(every(8)), val, out=tmp_path / "run", **LONGER)
    assert result.best_step == best and [entry["score"] for entry in result.history] == scores
    facts = json.loads((tmp_path / "run/best/bundle.json").read_text())
    assert facts["extra"]["step"] == best and facts["metrics"] == result.history[best // 2 - 1]["metrics"]
    # what is stored is the model of that step, and the rounding is measured against that step's metrics
    options = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
    torch.manual_seed(3)
    stored = gn.load(tmp_path / "run/best", backbone=gn.backbone("vit_tiny_patch16_224", options=options))
    found = gn.evaluate(stored, val)
    for task, values in found.items():
        for name, value in values.items():
            change = facts["metrics_rounding"][task][name]
            assert facts["metrics"][task][name] + change == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_patience_counts_from_the_best(monkeypatch):
    scored(monkeypatch, [0.2, 0.1, 0.5, 0.4, 0.45, 0.6])
    result = fit(tiny(), Blobs(every(4)), Blobs(every(1)), **LONGER | {"steps": 12, "patience": 2})
    assert (result.stopped, result.steps, result.best_step) == ("early", 10, 6)


@pytest.mark.parametrize(
    ("steps", "given", "at"), [(7, 3, [3, 6, 7]), (6, 3, [3, 6]), (2, 5, [2]), (25, None, [*range(2, 25, 2), 25])]
)
def test_evaluations_are_due_at_multiples_and_at_the_end(steps, given, at):
    options = SHORT | {"batch_size": 1, "steps": steps, "eval_every": given}
    assert [e["step"] for e in fit(tiny(), Blobs(every(2)), Blobs(every(1)), **options).history] == at


def test_checkpoints_are_written_when_they_are_due(tmp_path, monkeypatch):
    from garnish.training import run as module

    saved, save = [], module.save_run
    monkeypatch.setattr(
        module, "save_run", lambda out, state, *rest: (saved.append(state.step), save(out, state, *rest))
    )
    fit(tiny(), Blobs(every(4)), out=tmp_path / "run", steps=5, save_every=2, **SHORT)
    assert sorted(set(saved)) == [0, 2, 4, 5]


def test_without_validation_the_last_step_is_the_bundle(tmp_path):
    model = tiny()
    fit(model, Blobs(every(4)), out=tmp_path / "run", steps=3, lr=1e-2, **SHORT)
    options = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
    torch.manual_seed(3)
    stored = gn.load(tmp_path / "run/best", backbone=gn.backbone("vit_tiny_patch16_224", options=options))
    ours, theirs = tensors_of(model), tensors_of(stored)
    assert all(torch.equal(tensor.half().float(), theirs[name]) for name, tensor in ours.items())


def watched(monkeypatch, note):
    """Call ``note`` with the run and its gradients, by name, before each update; what it returns is called after it."""
    update = Run.update

    def noting(self):
        grads = {n: p.grad.clone() for n, p in self.step.trained.items() if p.grad is not None}
        after = note(self, grads)
        held = {n: p for n, p in self.step.trained.items() if p.grad is not None}
        optimizer, step = self.step.optimizer, self.step.optimizer.step
        optimizer.step = lambda: (after({n: p.grad.clone() for n, p in held.items()}) if after else None, step())
        done = update(self)
        optimizer.step = step
        return done

    monkeypatch.setattr(Run, "update", noting)


def test_each_step_has_its_rate(tmp_path, monkeypatch):
    seen = []
    watched(
        monkeypatch,
        lambda run, grads: (
            seen.append({p: g["lr"] for g in run.step.optimizer.param_groups for p in [g["peak"]]}) and None
        ),
    )
    options = SHORT | {"steps": 8, "warmup": 2, "lr": 0.01, "head_lr": 0.004, "log_every": 1}
    fit(tiny(), Blobs(every(4)), out=tmp_path / "run", **options)
    # by hand: half, whole, then (1 + cos(π k / 6)) / 2 for k = 0 … 5
    factors = [0.5, 1.0, *(0.5 + 0.5 * math.cos(math.pi * k / 6) for k in range(6))]
    for rates, factor in zip(seen, factors, strict=True):
        assert rates == pytest.approx({0.01: 0.01 * factor, 0.004: 0.004 * factor})
    rows = read_rows(tmp_path / "run/log/scalars.csv")
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.01 * factor for factor in factors])


@pytest.mark.parametrize("clip", [0.01, 1e9, None])
def test_gradients_are_clipped_to_the_norm_that_was_set(monkeypatch, clip):
    norms = []

    def norm(grads):
        return math.sqrt(sum(float(g.double().square().sum()) for g in grads.values()))

    watched(monkeypatch, lambda run, before: lambda after: norms.append((norm(before), norm(after))))
    fit(tiny(), Blobs(every(4)), steps=2, clip=clip, **SHORT)
    assert len(norms) == 2
    for before, after in norms:
        assert before > 0.02
        assert after == pytest.approx(clip if clip == 0.01 else before, rel=1e-3)


def test_accumulated_gradients_and_logged_losses_are_means(tmp_path, monkeypatch):
    """AdamW and clipping forgive any factor, so the gradients themselves are looked at."""
    found = []
    watched(monkeypatch, lambda run, grads: found.append(grads) and None)
    for parts in (1, 3):
        data = Blobs(every(1))  # one picture, so that all passes are the same
        options = SHORT | {"batch_size": 1, "accumulate": parts, "steps": 1, "log_every": 1}
        fit(tiny(gn.LoRA(rank=2)), data, out=tmp_path / f"{parts}", **options)
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-7)
    one, three = (read_rows(tmp_path / f"{parts}/log/scalars.csv")[0] for parts in (1, 3))
    for column in ("loss", "loss/seg", "loss/depth"):
        assert float(three[column]) == pytest.approx(float(one[column]), rel=1e-5)
    fit(
        tiny(),
        Blobs(every(2)),
        out=tmp_path / "2",
        **SHORT | {"batch_size": 1, "accumulate": 2, "steps": 1, "log_every": 1},
    )
    (two,) = read_rows(tmp_path / "2/log/scalars.csv")  # of two pictures; both weights are 1
    assert float(two["loss"]) == pytest.approx(float(two["loss/seg"]) + float(two["loss/depth"]), rel=1e-5)


def test_every_pass_draws_its_own_dropout(monkeypatch):
    from garnish.training import fit as module

    seeds, seed_step = [], module.seed_step
    monkeypatch.setattr(module, "seed_step", lambda *key: (seeds.append(key), seed_step(*key)))
    fit(tiny(), Blobs(PARTIAL), steps=2, accumulate=2, seed=9, **SHORT)
    assert seeds == [(9, 0, 0, 0), (9, 0, 1, 0), (9, 1, 0, 0), (9, 1, 1, 0)]


def test_evaluations_heed_their_options():
    model, val = tiny(), Blobs(every(5), seed=1, sizes=((48, 64), (32, 48)))
    given = {"eval_size": (32, 32), "eval_limit": 2}
    result = fit(model, Blobs(every(4)), val, steps=1, **given, **SHORT)
    assert result.metrics == gn.evaluate(model, val, size=(32, 32), limit=2)
    assert result.metrics != gn.evaluate(model, val, size=(32, 32)) != gn.evaluate(model, val, limit=2)


def test_the_seed_chooses_pictures_and_dropout(monkeypatch):
    first = [
        tensors_of(model) for seed in (1, 1, 2) if fit(model := tiny(), Blobs(every(6)), steps=1, seed=seed, **SHORT)
    ]
    assert all(torch.equal(tensor, first[1][name]) for name, tensor in first[0].items())
    assert any(not torch.equal(tensor, first[2][name]) for name, tensor in first[0].items())
