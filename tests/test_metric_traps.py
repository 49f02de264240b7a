"""Ways in which published metrics went wrong: ours against float64 formulas where the sloppy version differs.

Each test computes the sloppy number, too, and shows that its data tell the two apart.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors

import garnish as gn
from garnish.cli import main
from garnish.data.dataset import Dataset, Sample
from garnish.errors import OptionError
from garnish.tasks.depth import Depth
from garnish.tasks.normals import BIN_DEGREES, Normals
from garnish.tasks.saliency import Saliency
from garnish.tasks.semantic import Semantic
from garnish.training.evaluate import evaluate
from test_metrics import measure
from test_tasks import every_task, random_prediction, random_target

#: How far the sloppy version must be away, relative.
APART = 0.01


def assert_right(value: float, right: float, sloppy: float, rel: float = 1e-6) -> None:
    assert value == pytest.approx(right, rel=rel)
    assert abs(sloppy - right) > APART * abs(right), "the data do not tell the two apart"


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


# ---------------------------------------------------------------------------------------------------- normals


def some_normals(pictures: int = 4, size: tuple[int, int] = (20, 24)) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions whose errors differ much from picture to picture, and targets with unequal numbers of labels."""
    t = random_target(Normals(), pictures, size)
    spread = torch.tensor([0.1, 0.3, 1.0, 3.0]).reshape(-1, 1, 1, 1)
    t[0, :, 3:] = 0
    return 2 * t + spread * random_prediction(Normals(), pictures, size), t


def angles(p: torch.Tensor, t: torch.Tensor) -> list[np.ndarray]:
    """Degrees of the labelled pixels of each picture, by the law of cosines in float64."""
    found = []
    for a, b in zip(p.double().numpy(), t.double().numpy(), strict=True):
        a, b = (x.reshape(3, -1).T for x in (a, b))
        held = np.linalg.norm(b, axis=1) > 0.5
        a, b = a[held], b[held]
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        found.append(np.degrees(np.arccos(cosine.clip(-1, 1))))
    return found


def test_the_mean_angle_is_no_rmse():
    p, t = some_normals()
    every = np.concatenate(angles(p, t))
    values = measure(Normals(), (p, t))
    assert "rmse" not in values, "a bare rmse would be taken for the literature's, which is the mean"
    rmse = np.sqrt((every**2).mean())
    assert_right(values["mean_angle"], every.mean(), rmse)
    assert_right(values["rmse_angle"], rmse, every.mean())
    assert_right(values["median_angle"], np.median(every), every.mean(), rel=BIN_DEGREES / np.median(every))
    for name, limit in (("within_11_25", 11.25), ("within_22_5", 22.5), ("within_30", 30.0)):
        assert_right(values[name], (every < limit).mean(), (np.radians(every) < np.radians(limit) / 2).mean())


def test_angles_are_pooled_over_pixels():
    p, t = some_normals()
    parts = [a for a in angles(p, t) if len(a)]
    every = np.concatenate(parts)
    values = measure(Normals(), (p, t))
    assert_right(values["mean_angle"], every.mean(), np.mean([a.mean() for a in parts]))
    assert_right(values["rmse_angle"], np.sqrt((every**2).mean()), np.mean([np.sqrt((a**2).mean()) for a in parts]))
    medians = np.mean([np.median(a) for a in parts])
    assert_right(values["median_angle"], np.median(every), medians, rel=BIN_DEGREES / np.median(every))


def test_both_normals_are_made_unit_vectors():
    """A target of length .96 (8-bit files) under an arccos of the bare product is 16° off from itself."""
    _, t = some_normals()
    dot = float(np.degrees(np.arccos(0.96)))
    values = measure(Normals(), (3 * t, 0.96 * t))
    assert values["mean_angle"] < 1e-4 < dot


# ---------------------------------------------------------------------------------------------------- depth


def some_depths() -> tuple[torch.Tensor, torch.Tensor, list[tuple[np.ndarray, np.ndarray]]]:
    """Raw outputs, metres, and (predicted, true) of the labelled pixels of each picture."""
    task = Depth()
    p, t = random_prediction(task, 3), random_target(task, 3)
    t[:, :, 0, 0] = torch.nan
    t[:, :, 0, 1] = -1
    t[0, :, 3:] = 0
    t[2] = 9 + t[1] / 10
    t[2, :, 1, :2] = 655.35  # beyond max_metres: no label
    metres = (2.5 * np.logaddexp(0, p.double().numpy() + np.log(np.e - 1))).clip(1e-3, 10)
    pairs = []
    for a, b in zip(metres, t.double().numpy(), strict=True):
        held = (b > 1e-3) & (b <= 10)
        pairs.append((a[held], b[held]))
    return p, t, pairs


def test_depth_is_pooled_over_pixels_not_averaged_over_pictures():
    p, t, pairs = some_depths()
    formulas = {
        "rmse": lambda a, b: np.sqrt(((a - b) ** 2).mean()),
        "abs_rel": lambda a, b: (np.abs(a - b) / b).mean(),
        "log_rmse": lambda a, b: np.sqrt(((np.log(a) - np.log(b)) ** 2).mean()),
        **{f"delta{k}": lambda a, b, k=k: (np.maximum(a / b, b / a) < 1.25**k).mean() for k in (1, 2, 3)},
    }
    values = measure(Depth(), (p, t))
    assert values.keys() == formulas.keys()
    whole = [np.concatenate(side) for side in zip(*pairs, strict=True)]
    for name, formula in formulas.items():
        assert_right(values[name], formula(*whole), np.mean([formula(a, b) for a, b in pairs]), rel=1e-5)


def test_depth_formulas_are_not_their_lookalikes():
    p, t, pairs = some_depths()
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    values = measure(Depth(), (p, t))
    log = np.sqrt(((np.log(a) - np.log(b)) ** 2).mean())
    assert_right(values["log_rmse"], log, log / np.log(10), rel=1e-5)  # decimal logarithm
    relative = (np.abs(a - b) / b).mean()
    assert_right(values["abs_rel"], relative, (np.abs(a - b) / a).mean(), rel=1e-5)  # relative to the guess
    within = (np.maximum(a / b, b / a) < 1.25).mean()
    assert_right(values["delta1"], within, (a / b < 1.25).mean())  # too near always counts as right


# ---------------------------------------------------------------------------------------------------- segmentation


def one_hot(ids: torch.Tensor, classes: int) -> torch.Tensor:
    return 9 * F.one_hot(ids, classes).movedim(-1, 1).float()


def ious(guess: np.ndarray, true: np.ndarray, classes: int) -> np.ndarray:
    """(C,) intersection over union, NaN where neither side holds the class; 255 is left out."""
    held = true != 255
    both = np.array([((guess == k) & (true == k) & held).sum() for k in range(classes)], np.float64)
    either = np.array([(((guess == k) | (true == k)) & held).sum() for k in range(classes)])
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def some_ids(classes: int, pictures: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    true = torch.randint(0, classes, (pictures, 12, 15), generator=g)
    wrong = torch.rand(true.shape, generator=g) < torch.tensor([0.1, 0.4, 0.8]).reshape(-1, 1, 1)
    guess = torch.where(wrong, torch.randint(0, classes, true.shape, generator=g), true)
    true[1, :4] = 255
    return guess, true


def test_miou_is_read_off_one_confusion_matrix():
    guess, true = some_ids(4)
    true[0][true[0] == 3] = 0  # classes are unevenly spread over the pictures
    pooled = np.nanmean(ious(guess.numpy(), true.numpy(), 4))
    apart = np.mean([np.nanmean(ious(g, t, 4)) for g, t in zip(guess.numpy(), true.numpy(), strict=True)])
    assert_right(measure(Semantic(classes=4), (one_hot(guess, 4), true))["miou"], pooled, apart)
    counted = np.where(true.numpy() == 255, 0, true.numpy())  # void taken for class 0
    assert_right(pooled, pooled, np.nanmean(ious(guess.numpy(), counted, 4)))


def test_an_absent_class_is_left_out_and_a_phantom_counts_as_zero():
    guess, true = some_ids(4)
    guess[0, 0, 0] = 5  # of six classes 4 is nowhere, 5 is only predicted
    true[0, 0, 0] = 1
    found = ious(guess.numpy(), true.numpy(), 6)
    assert np.isnan(found[4]) and found[5] == 0
    values = measure(Semantic(classes=6), (one_hot(guess, 6), true))
    assert_right(values["miou"], found[[0, 1, 2, 3, 5]].mean(), np.nan_to_num(found).mean())
    assert_right(values["miou"], found[[0, 1, 2, 3, 5]].mean(), found[:4].mean())
    assert np.isnan(values["iou/class 4"])


def test_pictures_without_a_person_are_void_in_human_parts():
    task = Semantic(classes=7, weight=2, void_if_only_background=True)
    guess, true = some_ids(7)
    true[2] = 0  # nobody: all of it background
    true[2, :5] = 255
    right = np.nanmean(ious(guess[:2].numpy(), true[:2].numpy(), 7))
    assert (true[:2] == 0).any(), "beside people background is a class"
    sloppy = np.nanmean(ious(guess.numpy(), true.numpy(), 7))
    prediction = one_hot(guess, 7)
    values = measure(task, (prediction, true))
    assert_right(values["miou"], right, sloppy)
    assert_right(measure(Semantic(classes=7), (prediction, true))["miou"], sloppy, right)
    logp = np.log(np.exp(prediction.double().numpy()) / np.exp(prediction.double().numpy()).sum(1, keepdims=True))
    nll = [-logp[b, int(c), y, x] for b, y, x in np.ndindex(3, 12, 15) if (c := true[b, y, x]) != 255]
    with_people = [-logp[b, int(c), y, x] for b, y, x in np.ndindex(2, 12, 15) if (c := true[b, y, x]) != 255]
    assert_right(float(task.loss(task.sums(prediction, true))), np.mean(with_people), np.mean(nll), rel=1e-5)
    nobody = measure(task, (prediction[2:], true[2:]))
    assert np.isnan(list(nobody.values())).all()


# ---------------------------------------------------------------------------------------------------- saliency


def some_saliency(pictures: int = 4, seed: int = 0, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and maps of unequal areas; the smaller the salient part of a picture, the worse it is found."""
    g = torch.Generator().manual_seed(seed)
    share = torch.linspace(0.05, 0.6, pictures).reshape(-1, 1, 1, 1)
    t = (torch.rand(pictures, 1, 16, 18, generator=g) < share).float()
    p = torch.randn(t.shape, generator=g) + shift + (2 * t - 1) * (0.5 + 2.5 * share)
    t[:, :, :2] = 255
    return p, t


def saliency_by_hand(q: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    """By threshold: mean IoU over pictures at .20 … .90; pooled precision and recall, and their means, at .01 … .99."""
    held, true = t != 255, t == 1
    found: dict[str, list[float]] = {"iou": [], "pooled_iou": [], "f": [], "f_beta_1": [], "f_of_means": []}
    for k in range(1, 100):
        guess = (q > k / 100) & held
        hits = (guess & true).sum((1, 2)).astype(np.float64)
        guesses, trues = guess.sum((1, 2)), true.sum((1, 2))
        if k >= 20 and k <= 90 and k % 5 == 0:
            union = guesses + trues - hits
            found["iou"].append(np.where(union == 0, 1.0, hits / np.maximum(union, 1)).mean())
            found["pooled_iou"].append(hits.sum() / max(union.sum(), 1))
        precision, recall = hits.sum() / max(guesses.sum(), 1), hits.sum() / max(trues.sum(), 1)
        found["f"].append(1.3 * precision * recall / max(0.3 * precision + recall, 1e-12))
        found["f_beta_1"].append(2 * precision * recall / max(precision + recall, 1e-12))
        precision, recall = (hits / np.maximum(guesses, 1)).mean(), (hits / np.maximum(trues, 1)).mean()
        found["f_of_means"].append(2 * precision * recall / max(precision + recall, 1e-12))
    return {name: np.array(values) for name, values in found.items()}


def test_a_sigmoid_is_taken_once():
    p, t = some_saliency(shift=-1.5)
    q = sigmoid(p[:, 0].numpy())
    right, twice = (saliency_by_hand(x, t[:, 0].numpy()) for x in (q, sigmoid(q)))
    values = measure(Saliency(), (p, t))
    assert_right(values["iou_at_best_threshold"], right["iou"].max(), twice["iou"].max())
    assert_right(values["iou_at_0_5"], right["iou"][6], twice["iou"][6])
    assert_right(values["best_f_threshold"], (1 + right["f"].argmax()) / 100, (1 + twice["f"].argmax()) / 100)
    assert values["max_f"] == pytest.approx(right["f"].max(), rel=1e-6)
    assert (np.diff(twice["f"][:49]) == 0).all(), "probabilities taken for logits never fall below one half"
    assert (sigmoid(q) >= 0.5).all() and (sigmoid(q) <= 0.7311).all()
    np.testing.assert_allclose(Saliency().decode(p).numpy(), q, rtol=1e-5)


def test_max_f_favours_precision_and_is_pooled():
    p, t = some_saliency(shift=-1.5)
    found = saliency_by_hand(sigmoid(p[:, 0].numpy()), t[:, 0].numpy())
    values = measure(Saliency(), (p, t))
    assert_right(values["max_f"], found["f"].max(), found["f_beta_1"].max())
    assert_right(values["max_f"], found["f"].max(), found["f_of_means"].max())


def test_saliency_iou_is_a_mean_over_pictures():
    p, t = some_saliency()
    found = saliency_by_hand(sigmoid(p[:, 0].numpy()), t[:, 0].numpy())
    assert_right(measure(Saliency(), (p, t))["iou_at_best_threshold"], found["iou"].max(), found["pooled_iou"].max())


def test_thresholds_of_another_set_are_not_chosen_on_the_test_set():
    val, test = some_saliency(seed=0, shift=1.2), some_saliency(seed=1, shift=-0.8)
    on_val, on_test = (saliency_by_hand(sigmoid(p[:, 0].numpy()), t[:, 0].numpy()) for p, t in (val, test))
    task = Saliency().with_thresholds(measure(Saliency(), val))
    assert task.iou_threshold == pytest.approx(0.2 + 0.05 * on_val["iou"].argmax())
    values = measure(task, test)
    honest = on_test["iou"][on_val["iou"].argmax()], on_test["f"][on_val["f"].argmax()]
    assert_right(values["iou_at_chosen_threshold"], honest[0], on_test["iou"].max())
    assert_right(values["f_at_chosen_threshold"], honest[1], on_test["f"].max())
    assert values["iou_at_best_threshold"] == pytest.approx(on_test["iou"].max()), "named as what it is"
    assert measure(task, val)["iou_at_chosen_threshold"] == pytest.approx(on_val["iou"].max())


def test_thresholds_are_kept_where_nothing_was_seen():
    p, t = some_saliency()
    assert Saliency().with_thresholds(measure(Saliency(), (p, torch.full_like(t, 255)))) == Saliency()
    assert Depth().with_thresholds({"rmse": 1.0}) == Depth()
    with pytest.raises(OptionError, match=r"Saliency\.iou_threshold: 0\.123; set one of 0\.01"):
        Saliency(iou_threshold=0.123)


class Shown(Dataset):
    """Random pictures of which a share is salient."""

    def __init__(self, seed: int, share: float) -> None:
        g = torch.Generator().manual_seed(seed)
        coarse = F.interpolate(torch.rand(3, 3, 8, 8, generator=g), (64, 64), mode="nearest")
        self.targets = (coarse[:, :1] > 1 - share).float()
        self.images = (coarse * 255).to(torch.uint8)

    @property
    def name(self) -> str:
        return "shown"

    @property
    def tasks(self):
        return {"sal": Saliency()}

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        return Sample(tv_tensors.Image(self.images[index]), {"sal": tv_tensors.Mask(self.targets[index])}, str(index))


def test_evaluate_takes_thresholds_from_other_pictures():
    torch.manual_seed(0)
    options = {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}
    trunk = gn.backbone("vit_tiny_patch16_224", options=options)
    model = gn.adapt(trunk, gn.Frozen(), {"sal": Saliency()}, gn.LinearHead())
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.copy_(torch.randn(parameter.shape) / 4)
    val, test = Shown(0, 0.0), Shown(1, 0.3)  # the less is found in the first, the better
    hands = []
    for data in (val, test):
        with torch.no_grad():
            p = torch.cat([model(image[None] / 255)["sal"] for image in data.images])
        hands.append(saliency_by_hand(sigmoid(p[:, 0].numpy()), data.targets[:, 0].numpy()))
    values = evaluate(model, test, thresholds_on=val)["sal"]
    honest = hands[1]["iou"][hands[0]["iou"].argmax()]
    assert_right(values["iou_at_chosen_threshold"], honest, hands[1]["iou"].max(), rel=1e-3)
    assert "iou_at_chosen_threshold" not in evaluate(model, test)["sal"], "the model keeps its own task"
    with pytest.raises(OptionError, match="has no task 'sal'"):
        evaluate(model, test, thresholds_on=gn.Scenes(1, size=32, tasks=("depth",)))


def test_thresholds_on_the_command_line(capsys, tmp_path):
    torch.manual_seed(0)
    data = ["--data", "scenes", "--data.size", "32", "--data.val", "2", "--data.test", "2"]
    bundle = str(tmp_path / "bundle")
    gn.adapt(gn.backbone("garnish_b0", weights=True), gn.Frozen(), {"saliency": Saliency()}, gn.LinearHead()).save(
        bundle
    )
    assert main(["eval", bundle, *data, "--thresholds-on", "val", "--json"]) == 0
    assert {"iou_at_chosen_threshold", "f_at_chosen_threshold"} <= set(json.loads(capsys.readouterr().out)["saliency"])


# ---------------------------------------------------------------------------------------------------- meters


@every_task
def test_a_meter_that_is_cleared_holds_nothing_of_before(task):
    first = random_prediction(task, seed=8), random_target(task, seed=9)
    second = random_prediction(task), random_target(task)
    metric = task.metric()
    metric.update(*first)
    metric.compute()
    metric.reset()
    metric.update(*second)
    value = metric.compute()[task.headline].item()
    right, sloppy = measure(task, second)[task.headline], measure(task, first, second)[task.headline]
    assert value == pytest.approx(right, rel=1e-12) and abs(sloppy - right) > 1e-4 * abs(right)
    assert task.metric() is not task.metric()


def test_a_depth_meter_starts_anew_for_each_evaluation():
    p, t, pairs = some_depths()
    metric = Depth().metric()
    for index in (0, 2):
        metric.reset()
        metric.update(p[index : index + 1], t[index : index + 1])
    (a, b), every = pairs[2], [np.concatenate([pairs[0][side], pairs[2][side]]) for side in (0, 1)]
    leftover = np.sqrt(((every[0] - every[1]) ** 2).mean())
    assert_right(metric.compute()["rmse"].item(), np.sqrt(((a - b) ** 2).mean()), leftover, rel=1e-5)
