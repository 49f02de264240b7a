"""What every task must do, told only its kind of target and its number of output maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from garnish import registry
from garnish.errors import DataError, OptionError
from garnish.tasks.task import Task

every = pytest.mark.parametrize("name", list(registry.classes("tasks")))
SIZE = (9, 13)


def target_of(task: Task, *, labels: bool = True, count: int = 3) -> Tensor:
    """Random targets of a task's kind with a fifth of the pixels unlabelled, or all of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        target = task.example(count, SIZE)
        hole = torch.rand(count, *[1] * (target.ndim - 3), *SIZE) < (0.2 if labels else 2)
    return torch.where(hole, torch.tensor(task.target.missing, dtype=target.dtype), target)


def unlabelled_in(task: Task, target: Tensor) -> Tensor:
    """(count, 1, H, W): where a target of :func:`target_of` holds nothing but what stands for no label."""
    channels = target.view(len(target), -1, *SIZE)
    missing = task.target.missing
    return (channels.isnan() if math.isnan(missing) else channels == missing).all(1, keepdim=True)


def prediction_of(task: Task, count: int = 3) -> Tensor:
    return torch.randn(count, task.channels, *SIZE, generator=torch.Generator().manual_seed(1))


def loss_of(task: Task, prediction: Tensor, target: Tensor) -> Tensor:
    return task.loss(task.sums(prediction, target))


@every
def test_options_survive_lookup(name):
    task = tiny.example("tasks", name)
    assert registry.build("tasks", **registry.describe(task)) == task
    assert task.channels >= 1 and task.loss_weight > 0 and isinstance(task.higher_is_better, bool)
    with pytest.raises(OptionError, match="no_such_option"):
        registry.build("tasks", name, {**tiny.EXAMPLES["tasks"].get(name, {}), "no_such_option": 1})


@every
def test_sums_add_up(name):
    task = tiny.example("tasks", name)
    prediction, target = prediction_of(task), target_of(task)
    whole = task.sums(prediction, target)
    parts = [task.sums(prediction[i : i + 1], target[i : i + 1]) for i in range(len(target))]
    assert whole.ndim == 1 and whole.dtype == torch.float32
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-4)


@every
def test_loss_learns_from_labelled_pixels_only(name):
    task = tiny.example("tasks", name)
    prediction, target = prediction_of(task).requires_grad_(), target_of(task)
    loss = loss_of(task, prediction, target)
    assert loss.shape == () and loss > 0
    loss.backward()
    unlabelled = unlabelled_in(task, target).expand_as(prediction)
    assert 0.1 < unlabelled.float().mean() < 0.3
    assert prediction.grad.isfinite().all() and prediction.grad[~unlabelled].any()
    assert not prediction.grad[unlabelled].any()


@every
def test_nothing_labelled_costs_nothing(name):
    task = tiny.example("tasks", name)
    prediction = prediction_of(task).requires_grad_()
    loss = loss_of(task, prediction, target_of(task, labels=False))
    loss.backward()
    assert loss == 0 and not prediction.grad.any()
    metric = task.metric()
    metric.update(prediction.detach(), target_of(task, labels=False))
    assert metric.compute()[task.headline].isnan()


@every
def test_metric_streams_and_holds_the_headline(name):
    task = tiny.example("tasks", name)
    prediction, target = prediction_of(task), target_of(task)
    whole, parts = task.metric(), task.metric()
    whole.update(prediction, target)
    for i in range(len(target)):
        parts.update(prediction[i : i + 1], target[i : i + 1])
    found, streamed = whole.compute(), parts.compute()
    assert task.headline in found and found[task.headline].shape == () and found[task.headline].isfinite()
    for key, value in found.items():
        torch.testing.assert_close(streamed[key], value, rtol=1e-5, atol=1e-6, equal_nan=True)


@every
def test_what_is_predicted_where_there_is_no_label_does_not_count(name):
    task = tiny.example("tasks", name)
    prediction, target = prediction_of(task), target_of(task)
    unlabelled = unlabelled_in(task, target)
    assert torch.equal(task.labelled(target).view_as(unlabelled), ~unlabelled)
    found = []
    for there in (prediction, -5.0 * prediction, torch.full_like(prediction, 30.0)):
        metric = task.metric()
        metric.update(torch.where(unlabelled, there, prediction), target)
        found.append({key: value.item() for key, value in metric.compute().items()})
    assert found[0] == pytest.approx(found[1], nan_ok=True) and found[0] == pytest.approx(found[2], nan_ok=True)
    metric = task.metric()
    metric.update(-5.0 * prediction, target)
    assert metric.compute()[task.headline].item() != pytest.approx(found[0][task.headline], rel=1e-3)


@every
def test_descending_the_loss_betters_the_headline(name):
    task = tiny.example("tasks", name)
    target, prediction = target_of(task), prediction_of(task).requires_grad_()

    def headline() -> float:
        metric = task.metric()
        metric.update(prediction.detach(), target)
        return float(metric.compute()[task.headline])

    before = headline()
    optimizer = torch.optim.Adam([prediction], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss_of(task, prediction, target).backward()
        optimizer.step()
    assert (headline() > before) == task.higher_is_better


@every
def test_targets_are_checked_decoded_painted_and_written(name, tmp_path):
    task = tiny.example("tasks", name)
    target = target_of(task)
    for one in target:
        task.check_target(one, "a.png")
        assert task.paint(one).shape == (*SIZE, 3)
    # names of no class; no numbers, where these do not say "no label", else beyond all numbers; another layout
    odd = 254 if task.target.categorical else torch.inf if math.isnan(task.target.missing) else torch.nan
    for bad in (torch.full_like(target[0], odd), target[0][None]):
        with pytest.raises(DataError, match=r"a\.png") as caught:
            task.check_target(bad, "a.png")
        assert "\n" not in str(caught.value)
    decoded = task.decode(prediction_of(task))
    assert decoded.shape in ((3, *SIZE), (3, 3, *SIZE))
    painted = task.paint(decoded[0])
    assert painted.shape == (*SIZE, 3) and painted.dtype.name == "uint8"
    written = task.write(decoded[0], tmp_path / "map")
    assert written.stem == "map" and written.suffix and written.stat().st_size > 0


@every
def test_its_decoding_gives_the_same_maps_and_files_without_torch(name, tmp_path):
    task = tiny.example("tasks", name)
    decoding = task.decoding
    if decoding is None:  # it paints and writes by itself, and stays with torch
        assert type(task).paint is not Task.paint and type(task).write is not Task.write
        return
    assert registry.build("decodings", **registry.describe(decoding)) == decoding
    assert decoding.channels == task.channels and decoding.legend() == task.legend()
    for seed, (scale, size) in enumerate([(1.0, SIZE), (30.0, (1, 1)), (1e4, (7, 5)), (0.0, (3, 2))]):
        raw = scale * torch.randn(1, task.channels, *size, generator=torch.Generator().manual_seed(seed))
        wanted, found = task.decode(raw)[0], decoding.decode(raw[0].numpy())
        assert found.dtype == wanted.numpy().dtype
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=2e-6, atol=1e-9)
        values = decoding.values(raw[0].numpy())
        assert values.dtype == np.float32 and values.shape[1:] == size and np.isfinite(values).all()
        for again in (values, decoding.values(decoding.raw_of(values)), decoding.mirrored(decoding.mirrored(values))):
            close = np.isclose(decoding.of_values(again), found, rtol=1e-4, atol=1e-6)
            assert close.mean() > 0.99, "the map of the values is that of the raw output"
        assert (decoding.paint(wanted.numpy()) == task.paint(wanted)).all()
        files = [
            task.write(wanted, tmp_path / f"torch{seed}"),
            decoding.write(wanted.numpy(), tmp_path / f"numpy{seed}"),
        ]
        assert files[0].suffix == files[1].suffix and files[0].read_bytes() == files[1].read_bytes()
