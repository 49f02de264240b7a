"""Metrics against brute force in numpy and scipy, and against torchmetrics' own numbers."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from garnish.errors import OptionError
from garnish.tasks.depth import Depth
from garnish.tasks.edges import Edges
from garnish.tasks.metrics.thresholds import counts_above
from garnish.tasks.metrics.tolerance import disc_maximum
from garnish.tasks.normals import Normals
from garnish.tasks.saliency import Saliency
from garnish.tasks.semantic import Semantic
from test_tasks import ALL, every_task, no_labels, random_prediction, random_target


def measure(task, *batches):
    metric = task.metric()
    for prediction, target in batches:
        metric.update(prediction, target)
    return {name: value.item() for name, value in metric.compute().items()}


def perfect(task, target):
    """A raw output that decodes to the target."""
    if isinstance(task, Semantic):
        return 50 * F.one_hot(torch.where(target == 255, 0, target), task.channels).movedim(-1, 1).float()
    if isinstance(task, Depth):
        softplus = target.clamp_min(0.01).double() / (task.max_metres / 4)
        return (torch.expm1(softplus).log() - np.log(np.e - 1)).float()
    return 3 * target if isinstance(task, Normals) else 20 * (2 * (target == 1).float() - 1)


# ---------------------------------------------------------------------------------------------------- all tasks


@every_task
def test_streaming_equals_one_batch_and_reset_clears(task):
    p, t = random_prediction(task), random_target(task)
    whole = measure(task, (p, t))
    parts = measure(task, (p[:1], t[:1]), (p[1:3], t[1:3]), (p[3:], t[3:]))
    assert task.headline in whole
    assert parts == pytest.approx(whole, rel=1e-7, nan_ok=True)  # float32 kernels differ by place in memory
    metric = task.metric()
    metric.update(random_prediction(task, seed=8), random_target(task, seed=9))
    metric.reset()
    metric.update(p, t)
    again = {name: value.item() for name, value in metric.compute().items()}
    assert again == pytest.approx(whole, rel=1e-12, nan_ok=True)


@every_task
def test_states_are_exact_sums(task):
    metric = task.metric()
    for name, state in metric._defaults.items():
        assert state.dtype in (torch.int64, torch.float64), name
        assert metric._reductions[name] is not None
    metric.update(random_prediction(task).bfloat16(), random_target(task))
    assert all(getattr(metric, name).dtype == state.dtype for name, state in metric._defaults.items())
    assert all(v.shape == () and v.dtype == torch.float64 for v in copy.deepcopy(metric).compute().values())


@every_task
def test_a_perfect_prediction_is_perfect(task):
    t = random_target(task)
    values = measure(task, (perfect(task, t), t))
    assert values[task.headline] == pytest.approx(1.0 if task.higher_is_better else 0.0, abs=1e-5)
    worse = measure(task, (random_prediction(task), t))[task.headline]
    assert worse < 0.99 if task.higher_is_better else worse > 0.1


@every_task
def test_without_any_label_values_are_nan(task):
    values = measure(task, (random_prediction(task), no_labels(task)))
    assert np.isnan(list(values.values())).all(), values


# ---------------------------------------------------------------------------------------------------- semantic


def test_miou_equals_brute_force():
    task = Semantic(classes=7)
    p, t = random_prediction(task), random_target(Semantic(classes=5))
    p[:, 6] -= 99  # class 5 is only predicted, class 6 is nowhere
    guess, true = p.argmax(1).numpy(), t.numpy()
    valid = true != 255
    ious = []
    for k in range(7):
        a, b = (guess == k) & valid, (true == k) & valid
        ious.append((a & b).sum() / (a | b).sum() if (a | b).any() else np.nan)
    assert ious[5] == 0 and np.isnan(ious[6])
    values = measure(task, (p, t))
    assert [values[f"iou/class {k}"] for k in range(7)] == pytest.approx(ious, nan_ok=True)
    assert values["miou"] == pytest.approx(np.mean(ious[:6]))
    assert values["pixel_accuracy"] == pytest.approx((guess == true)[valid].mean())


@pytest.mark.reference
def test_miou_equals_torchmetrics_where_all_classes_occur():
    task = Semantic(classes=5)
    p, t = random_prediction(task), random_target(task)
    metric = task.metric()
    metric.update(p, t)
    assert torch.equal(metric.matrix, multiclass_confusion_matrix(p, t, num_classes=5, ignore_index=255))
    theirs = multiclass_jaccard_index(p, t, num_classes=5, ignore_index=255)
    assert metric.compute()["miou"].item() == pytest.approx(theirs.item(), rel=1e-6)


def tolerant_counts(guess, true, valid, tolerance):
    """Matched and all predicted, matched and all true pixels of one picture, by exact distance transforms."""
    guess, true = guess & valid, true & valid
    to_true = distance_transform_edt(~true) if true.any() else np.full(true.shape, np.inf)
    to_guess = distance_transform_edt(~guess) if guess.any() else np.full(true.shape, np.inf)
    return np.array(
        [(guess & (to_true <= tolerance)).sum(), guess.sum(), (true & (to_guess <= tolerance)).sum(), true.sum()]
    )


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3, 5])
def test_f1_within_a_tolerance_equals_distance_transforms(tolerance):
    task = Semantic(classes=("road", "crack"), f1_class="crack", f1_tolerance_px=tolerance)
    g = torch.Generator().manual_seed(5)
    p = torch.randn(3, 2, 31, 40, generator=g)
    p[:, 1] -= 2.5
    t = (torch.rand(3, 31, 40, generator=g) < 0.03).long()
    t[:, :5] = 255
    counts = sum(
        tolerant_counts(a.argmax(0).numpy() == 1, b.numpy() == 1, b.numpy() != 255, tolerance)
        for a, b in zip(p, t, strict=True)
    )
    precision, recall = counts[0] / counts[1], counts[2] / counts[3]
    values = measure(task, (p, t))
    assert task.headline == f"f1_at_{tolerance}px"
    assert values[f"precision_at_{tolerance}px"] == pytest.approx(precision)
    assert values[f"recall_at_{tolerance}px"] == pytest.approx(recall)
    assert values[task.headline] == pytest.approx(2 * precision * recall / (precision + recall))


def test_f1_where_one_side_is_empty():
    task = Semantic(classes=2, f1_class=1)
    none, some = torch.zeros(1, 6, 6, dtype=torch.long), torch.zeros(1, 6, 6, dtype=torch.long)
    some[0, 2] = 1
    assert measure(task, (perfect(task, none), none))["f1_at_2px"] == 1
    assert measure(task, (perfect(task, none), some))["f1_at_2px"] == 0
    assert measure(task, (perfect(task, some), none))["f1_at_2px"] == 0


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 7])
def test_disc_maximum_reaches_exactly_the_radius(radius):
    x = torch.zeros(1, 5, 23)
    x[0, 1, 11] = 1
    y, z = np.mgrid[:5, :23]
    expected = (y - 1) ** 2 + (z - 11) ** 2 <= radius**2
    assert ((disc_maximum(x, radius)[0] > 0).numpy() == expected).all()
    assert (disc_maximum(x - 5, radius) <= -4).all(), "the border adds nothing"


# ---------------------------------------------------------------------------------------------------- depth, normals


def test_depth_metrics_equal_brute_force():
    task = Depth()
    p, t = random_prediction(task), random_target(task)
    t[0, 0, 0, :3] = torch.tensor([torch.inf, torch.nan, -1.0])
    valid = (t > 0).numpy() & np.isfinite(t.numpy())
    a, b = task.decode(p)[:, None].double().numpy()[valid], t.double().numpy()[valid]
    worst = np.maximum(a / b, b / a)
    expected = {
        "rmse": np.sqrt(((a - b) ** 2).mean()),
        "abs_rel": (np.abs(a - b) / b).mean(),
        "log_rmse": np.sqrt(((np.log(a) - np.log(b)) ** 2).mean()),
        **{f"delta{k}": (worst < 1.25**k).mean() for k in (1, 2, 3)},
    }
    assert measure(task, (p, t)) == pytest.approx(expected, rel=1e-9)


def test_depth_rmse_is_pooled_over_pixels_not_pictures():
    task = Depth()
    zero = task.decode(torch.zeros(1, 1, 1, 1)).item()
    t = torch.zeros(2, 1, 2, 2)
    t[0] = zero + 1  # four pixels, 1 m off
    t[1, 0, 0, 0] = zero + 3  # one pixel, 3 m off
    value = measure(task, (torch.zeros(2, 1, 2, 2), t))["rmse"]
    assert value == pytest.approx(np.sqrt((4 * 1 + 9) / 5), rel=1e-6)
    assert value != pytest.approx((1 + 3) / 2, rel=1e-2)


def test_normals_metrics_equal_brute_force():
    task = Normals()
    t = random_target(task, 4, (40, 50))
    p = 3 * t + 0.9 * random_prediction(task, 4, (40, 50))
    valid = np.abs(t.numpy()).sum(1) > 0
    a, b = (x.double().numpy().transpose(0, 2, 3, 1)[valid] for x in (p, t))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
    values = measure(task, (p, t))
    assert values["mean_angle"] == pytest.approx(angle.mean(), rel=1e-9)
    assert values["rmse_angle"] == pytest.approx(np.sqrt((angle**2).mean()), rel=1e-9)
    assert values["median_angle"] == pytest.approx(np.median(angle), abs=0.06)
    for name, limit in (("within_11_25", 11.25), ("within_22_5", 22.5), ("within_30", 30)):
        assert 0 < values[name] == pytest.approx((angle < limit).mean(), abs=1e-12)


def test_small_angles_are_exact():
    degrees = 1e-3  # arccos in float32 cannot tell this from 0
    t = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    p = torch.tensor([np.sin(np.radians(degrees)), 0.0, np.cos(np.radians(degrees))]).float().reshape(1, 3, 1, 1)
    assert measure(Normals(), (5 * p, t))["mean_angle"] == pytest.approx(degrees, rel=1e-4)
    assert measure(Normals(), (-p, t))["mean_angle"] == pytest.approx(180 - degrees, abs=1e-6)


def test_a_zero_normal_is_no_perfect_prediction():
    t = random_target(Normals())
    assert measure(Normals(), (torch.zeros_like(t), t))["mean_angle"] == 90


# ---------------------------------------------------------------------------------------------------- edges, saliency


def test_counts_are_strictly_above_a_threshold():
    values = torch.tensor([[0.2, 0.5, 0.5, 0.75], [0.5, 0.6, 0.0, 1.0]])
    mask = torch.tensor([[True, True, True, True], [True, True, True, False]])
    assert counts_above(values, mask, (0.25, 0.5, 0.75)).tolist() == [[3, 1, 0], [2, 1, 0]]


def test_edges_f_equals_distance_transforms():
    task = Edges(tolerance_px=2)
    g = torch.Generator().manual_seed(6)
    t = (torch.rand(3, 1, 24, 33, generator=g) < 0.04).float()
    p = 2 * torch.randn(t.shape, generator=g) - 3 + 3 * t
    t[:, :, :4] = 255
    q, best = task.decode(p).numpy(), (-1.0,)
    for k in range(1, 100):
        counts = sum(
            tolerant_counts(a > np.float32(k / 100), b == 1, b != 255, 2)
            for a, b in zip(q, t[:, 0].numpy(), strict=True)
        )
        precision, recall = counts[0] / max(counts[1], 1), counts[2] / counts[3]
        f = 2 * precision * recall / max(precision + recall, 1e-12)
        best = max(best, (f, precision, recall, -k / 100))
    values = measure(task, (p, t))
    names = ("f_at_2px", "precision_at_2px", "recall_at_2px")
    assert [values[n] for n in names] == pytest.approx(best[:3])
    assert values["best_threshold"] == pytest.approx(-best[3])


def test_saliency_equals_brute_force():
    task = Saliency()
    p, t = random_prediction(task, 5), random_target(task, 5)
    p = p + 2 * (t == 1)
    t[1] = torch.where(t[1] == 1, 0, t[1])  # nothing salient, and nothing found: IoU 1
    p[1] = -9
    q, y = 1 / (1 + np.exp(-p[:, 0].double().numpy())), t[:, 0].numpy()
    means = []
    for threshold in np.linspace(0.2, 0.9, 15):
        ious = []
        for a, b in zip(q[:4], y[:4], strict=True):  # the last picture has no label
            guess, true = (a > threshold) & (b != 255), b == 1
            ious.append((guess & true).sum() / (guess | true).sum() if (guess | true).any() else 1.0)
        means.append(np.mean(ious))
    fs = []
    for threshold in np.arange(1, 100) / 100:
        guess, true = (q > threshold) & (y != 255), y == 1
        precision, recall = (guess & true).sum() / max(guess.sum(), 1), (guess & true).sum() / true.sum()
        fs.append(1.3 * precision * recall / max(0.3 * precision + recall, 1e-12))
    values = measure(task, (p, t))
    assert values["iou_at_best_threshold"] == pytest.approx(max(means))
    assert values["best_iou_threshold"] == pytest.approx(0.2 + 0.05 * np.argmax(means))
    assert values["iou_at_0_5"] == pytest.approx(means[6])
    assert values["max_f"] == pytest.approx(max(fs))


def test_max_f_at_twentieths_as_the_released_decoders_are_measured():
    """From the definition: F at .05, .10 … .95 of all pictures' pixels, where a probability at a threshold is above."""
    task = Saliency(max_f_at="twentieths")
    grey = np.array([[0.25, 0.5, 0.74, 0.75], [0.05, 0.04, 0.95, 0.96]])  # some lie exactly at thresholds
    p = torch.logit(torch.from_numpy(grey).double()).float()[None, None]
    t = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 255]])[None, None]
    q, y = torch.sigmoid(p)[0, 0].numpy(), t[0, 0].numpy()
    found = []
    for threshold in np.arange(1, 20, dtype=np.float32) / np.float32(20):
        guess = (q >= threshold) & (y != 255)
        hits = (guess & (y == 1)).sum()
        precision, recall = hits / max(guess.sum(), 1), hits / (y == 1).sum()
        found.append(1.3 * precision * recall / max(0.3 * precision + recall, 1e-12))
    values = measure(task, (p, t))
    assert values["max_f"] == pytest.approx(max(found))
    assert values["best_f_threshold"] == pytest.approx((1 + np.argmax(found)) / 20)
    chosen = measure(Saliency(max_f_at="twentieths", f_threshold=0.75), (p, t))
    assert chosen["f_at_chosen_threshold"] == pytest.approx(found[14])
    others = {"iou_at_best_threshold", "best_iou_threshold", "iou_at_0_5"}
    assert {n: values[n] for n in others} == {n: measure(Saliency(), (p, t))[n] for n in others}


def test_the_two_conventions_of_max_f_differ_where_every_pixel_is_equally_sure():
    """All of it at .5, half of it salient: nothing lies strictly above .5, everything at it."""
    p, t = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    for task, at in ((Saliency(), 0.49), (Saliency(max_f_at="twentieths"), 0.5)):
        metric = task.metric()
        metric.update(p, t)
        f = 1.3 * 0.5 / (0.3 * 0.5 + 1)
        assert float(metric.compute()["max_f"]) == pytest.approx(f)
        chosen = dataclasses.replace(task, f_threshold=0.5).metric()
        chosen.update(p, t)
        assert float(chosen.compute()["f_at_chosen_threshold"]) == pytest.approx(f if at == 0.5 else 0.0)


def test_unknown_thresholds_of_f_are_refused():
    with pytest.raises(OptionError, match=r"Saliency\.max_f_at: expected one of hundredths, twentieths; got 'tenths'"):
        Saliency(max_f_at="tenths")
    with pytest.raises(OptionError, match=r"Saliency\.f_threshold: 0\.51; set one of 0\.05, 0\.10 … 0\.95"):
        Saliency(max_f_at="twentieths", f_threshold=0.51)


def test_saliency_is_not_squashed_twice():
    """With a second sigmoid all probabilities lie in [.5, .73], and thresholds outside have no effect."""
    t = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    p = torch.logit(torch.tensor([0.95, 0.88, 0.83, 0.1])).reshape(1, 1, 1, 4)
    values = measure(Saliency(), (p, t))
    assert values["best_iou_threshold"] == pytest.approx(0.85) and values["iou_at_best_threshold"] == 1
    assert values["iou_at_0_5"] == pytest.approx(2 / 3)


def test_headlines_are_named():
    assert [task.headline for task in ALL] == [
        *("miou", "miou", "miou", "f1_at_2px", "rmse", "mean_angle", "f_at_2px", "iou_at_best_threshold")
    ]
