"""Metrics over a set: the same whatever the batches, sizes and gaps in the labels."""

from __future__ import annotations

import math

import pytest
import torch

import garnish as gn
import tiny as tiny_models
from garnish.data.augment import resize_sample
from garnish.data.dataset import Sample
from garnish.data.subset import chosen
from garnish.errors import DataError, OptionError
from garnish.training.evaluate import evaluate
from training_cases import PARTIAL, TASKS, Blobs, every, moved, tiny

SIZES = ((48, 64), (32, 48), (40, 56))


@pytest.fixture(scope="module")
def model():
    return moved(tiny())


def by_hand(model, samples: list[Sample]) -> dict[str, dict[str, float]]:
    """One picture at a time, pooled in float64 from the definitions."""
    model.eval()
    matrix, squared, count = torch.zeros(3, 3, dtype=torch.long), 0.0, 0
    for sample in samples:
        with torch.no_grad():
            out = model(sample.image.as_subclass(torch.Tensor)[None] / 255)
        if "seg" in sample.targets:
            ids, predicted = sample.targets["seg"].as_subclass(torch.Tensor), out["seg"][0].argmax(0)
            for i, p in zip(ids[ids != 255].tolist(), predicted[ids != 255].tolist(), strict=True):
                matrix[i, p] += 1
        if "depth" in sample.targets:
            metres = 2.5 * torch.nn.functional.softplus(out["depth"][0].double() + math.log(math.e - 1))
            squared += float(((metres.clamp(1e-3, 10) - sample.targets["depth"].as_subclass(torch.Tensor)) ** 2).sum())
            count += metres.numel()
    both = matrix.diagonal().double()
    miou = float((both / (matrix.sum(0) + matrix.sum(1) - both)).mean())
    return {"miou": miou, "rmse": (squared / count) ** 0.5}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_partial_labels_and_sizes(model, batch_size):
    data = Blobs(PARTIAL, sizes=SIZES)
    found = evaluate(model, data, batch_size=batch_size)
    expected = by_hand(model, [data[i] for i in range(len(data))])
    assert found["seg"]["miou"] == pytest.approx(expected["miou"], rel=1e-6)
    assert found["depth"]["rmse"] == pytest.approx(expected["rmse"], rel=1e-5)


def test_at_another_size_and_on_some(model):
    data = Blobs(every(9))
    found = evaluate(model, data, size=(32, 32), limit=3)
    expected = by_hand(model, [resize_sample(data[i], (32, 32)) for i in (0, 4, 8)])
    assert found["seg"]["miou"] == pytest.approx(expected["miou"], rel=1e-6)
    assert chosen(9, 3) == [0, 4, 8] and chosen(2, 3) == [0, 1] and chosen(7, 1) == [0]


def test_the_model_is_left_as_it_was(model):
    before = {n: t.clone() for n, t in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        evaluate(model, Blobs(every(2)))
        assert model.training is training
        assert model.head("seg").training is training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_task_without_labels_is_nan_and_some_tasks(model):
    found = evaluate(model, Blobs([["depth"], ["depth"]]))
    assert math.isnan(found["seg"]["miou"]) and math.isfinite(found["depth"]["rmse"])
    assert list(evaluate(model, Blobs(every(1)), tasks=["depth"])) == ["depth"]


def test_what_does_not_fit_is_named(model, monkeypatch):
    with pytest.raises(OptionError, match=r"the model has no task 'dept'.*did you mean 'depth'"):
        evaluate(model, Blobs(every(1)), tasks=["dept"])
    with pytest.raises(OptionError, match="batch_size: expected a whole number from 1 to 65,536, got int 0"):
        evaluate(model, Blobs(every(1)), batch_size=0)
    other = {"seg": gn.Semantic(classes=9), "depth": gn.Depth()}
    monkeypatch.setattr(Blobs, "tasks", property(lambda self: other))
    said = r"blobs: task 'seg': labels are for 9 channels \(classes\) in the data, but for 3 in the model; make the two"
    with pytest.raises(DataError, match=said):
        evaluate(model, Blobs(every(1)))
    monkeypatch.setattr(Blobs, "tasks", property(lambda self: {"seg": gn.Depth()}))
    with pytest.raises(
        DataError, match=r"'seg': labels are for Depth in the data, but for Semantic in the model; make the"
    ):
        evaluate(model, Blobs(every(1)))
    monkeypatch.setattr(Blobs, "tasks", property(lambda self: {"edges": gn.Edges()}))
    with pytest.raises(DataError, match="labels are for edges, the model's tasks are seg, depth"):
        evaluate(model, Blobs(every(1)))
    assert set(TASKS) == {"seg", "depth"}


def test_thresholds_are_chosen_at_the_size_that_is_measured():
    """On the same pictures they are then the best ones, so both figures are one; at their own size others are best."""
    data = gn.Scenes(3, size=64, seed=1, tasks=("saliency",))
    model = tiny_models.model("vit", gn.LoRA(rank=2), tasks=("seg",))
    model.add(gn.LoRA(rank=2), data.tasks, gn.LinearHead())
    tiny_models.randomise_own(model, seed=3)
    found = evaluate(model, data, size=(32, 32), thresholds_on=data)["saliency"]
    own = evaluate(model, data)["saliency"]
    assert found["max_f"] == pytest.approx(found["f_at_chosen_threshold"], abs=1e-9)
    assert found["best_f_threshold"] != own["best_f_threshold"]
