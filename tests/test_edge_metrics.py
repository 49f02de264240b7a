"""ODS-F, OIS-F and AP: thinning, matching and counting, against brute force from the definitions."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from scipy.optimize import linear_sum_assignment

from garnish.errors import OptionError
from garnish.tasks.edges import Edges
from garnish.tasks.metrics.boundaries import average_precision, best_between
from garnish.tasks.metrics.boundary_matching import num_matched, reach_px
from garnish.tasks.metrics.non_maximum_suppression import suppress
from garnish.tasks.metrics.thinning import thin, thin_levels
from garnish.tasks.metrics.thresholds import HUNDREDTHS

ODS = Edges(protocol="ods", max_distance=0.05)
EIGHT = np.ones((3, 3))


def noise(seed, size=(23, 31), sigma=1.5):
    """Smooth random values spread evenly over [0, 1]."""
    x = gaussian_filter(np.random.default_rng(seed).standard_normal(size), sigma)
    return (x.argsort(axis=None).argsort().reshape(size) + 0.5) / x.size


# ---------------------------------------------------------------------------------------------------- thinning


def slow_thin(mask):
    """Guo and Hall's rule, pixel by pixel."""
    mask = np.pad(mask, 1).astype(int)
    around = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    while True:
        before = mask.copy()
        for half in (0, 1):
            deleted = []
            for i, j in np.argwhere(mask):
                x = [None, *(mask[i + a, j + b] for a, b in around)]
                x.append(x[1])
                crossings = sum(x[2 * k - 1] == 0 and (x[2 * k] == 1 or x[2 * k + 1] == 1) for k in range(1, 5))
                n1 = sum(x[2 * k - 1] | x[2 * k] for k in range(1, 5))
                n2 = sum(x[2 * k] | x[2 * k + 1] for k in range(1, 5))
                keeps = (x[6] | x[7] | (1 - x[4])) & x[5] if half else (x[2] | x[3] | (1 - x[8])) & x[1]
                if crossings == 1 and 2 <= min(n1, n2) <= 3 and not keeps:
                    deleted.append((i, j))
            for place in deleted:
                mask[place] = 0
        if (mask == before).all():
            return mask[1:-1, 1:-1].astype(bool)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
def test_thinning_follows_the_rule_at_every_threshold(sigma):
    values = noise(3, sigma=sigma)
    levels = np.floor(values * 71).astype(int)  # more thresholds than a word has bits, and values at none of them
    pixels, kept = thin_levels(levels, 70)
    assert (np.diff(pixels) > 0).all() and kept.shape == (70, len(pixels)) and kept.any(0).all()
    for k in (0, 7, 20, 40, 63, 64, 69):
        out = np.zeros(values.shape, bool)
        out.reshape(-1)[pixels[kept[k]]] = True
        assert (out == slow_thin(levels > k)).all()


def test_thinning_keeps_pieces_and_holes_and_thins_twice_to_the_same():
    mask = noise(5, (60, 80), 2.0) > 0.45
    out = thin(mask)
    assert (out <= mask).all() and out.sum() < 0.5 * mask.sum()
    assert label(out, EIGHT)[1] == label(mask, EIGHT)[1]
    assert label(~np.pad(out, 1))[1] == label(~np.pad(mask, 1))[1]
    assert (thin(out) == out).all()


def test_thinning_of_a_bar_is_its_middle_line():
    mask = np.zeros((9, 30), bool)
    mask[3:6, 2:28] = True
    out = thin(mask)
    assert out[4, 5:25].all() and not out[[3, 5], 5:25].any()
    assert not thin(np.zeros((4, 5), bool)).any()
    assert thin(np.ones((1, 1), bool)).all()


# ---------------------------------------------------------------------------------------------------- suppression


def test_suppression_leaves_the_crest_of_a_ridge():
    y, x = np.mgrid[:40, :60]
    for across in (x - 30.0, y - 20.0, (x - 30 - y + 20) / np.sqrt(2)):
        ridge = np.exp(-((across / 3) ** 2)).astype(np.float32)
        out = suppress(ridge)
        inside = np.s_[8:-8, 8:-8]
        assert (out[inside][np.abs(across[inside]) < 0.1] == ridge[inside][np.abs(across[inside]) < 0.1]).all()
        off = (np.abs(across) > 1.5) & (np.abs(across) < 8)
        assert not out[off & (np.indices(ridge.shape).min(0) > 8)].any()
    assert out[0].max() == 0, "the border fades out"


# ---------------------------------------------------------------------------------------------------- matching


def scatter(seed, size=(5, 6), count=6):
    g = np.random.default_rng(seed)
    maps = np.zeros((2, size[0] * size[1]), bool)
    for one in maps:
        one[g.choice(maps.shape[1], g.integers(0, count + 1), replace=False)] = True
    return maps.reshape(2, *size)


def apart(predicted, true):
    """Distances of all pairs."""
    a, b = np.argwhere(predicted), np.argwhere(true)
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def exhaustive(distance, radius):
    """Most pairs, over every one-to-one assignment."""
    best = 0
    if distance.shape[0] > distance.shape[1]:
        distance = distance.T
    n, m = distance.shape
    for chosen in itertools.permutations([*range(m), *[None] * n], n):
        pairs = [distance[i, j] for i, j in enumerate(chosen) if j is not None]
        if all(d <= radius for d in pairs):
            best = max(best, len(pairs))
    return best


def count(predicted, true, radius):
    pixels = np.flatnonzero(predicted)
    return num_matched(pixels, np.ones((1, len(pixels)), bool), true, radius)[0]


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 2.3])
def test_matching_equals_exhaustive_search(radius):
    counts = []
    for seed in range(25):
        predicted, true = scatter(seed, count=4)
        most = exhaustive(apart(predicted, true), radius)
        assert count(predicted, true, radius) == most
        counts.append(most)
    assert len(set(counts)) > (2 if radius else 1)


def test_matching_equals_an_assignment_with_outliers():
    """The problem BSDS states, every outlier link included, solved densely."""
    longer = 0
    for seed in range(12):
        size, radius = (20, 28), (1.0, 2.9, 4.1)[seed % 3]
        g = np.random.default_rng(seed)
        true, predicted = g.random((2, *size)) < g.uniform(0.02, 0.2, (2, 1, 1))
        d = apart(predicted, true)
        n, m = d.shape
        price = 100 * radius  # BSDS's outlierCost
        cost = np.full((n + m, n + m), price)
        cost[:n, :m] = np.where(d <= radius, d, 1e9)
        i, j = linear_sum_assignment(cost)
        real = (i < n) & (j < m)
        assert count(predicted, true, radius) == real.sum()
        greedy = set()
        for a, b in zip(*np.nonzero(d <= radius), strict=True):
            greedy |= {("p", a), ("t", b)} if not {("p", a), ("t", b)} & greedy else set()
        longer += len(greedy) // 2 < real.sum()
    assert longer, "a greedy matching would do"


def test_a_matching_carried_over_thresholds_is_one_from_scratch():
    true = thin(np.abs(noise(1, (60, 70), 3) - 0.5) < 0.05)
    pixels = np.flatnonzero(gaussian_filter(true.astype(float), 2) > 0.01)
    g = np.random.default_rng(0)
    for share in (0.3, 0.6):
        kept = g.random((20, len(pixels))) < share
        kept[3], kept[7], kept[9] = kept[2], False, True
        alone = [num_matched(pixels, row[None], true, 3.7)[0] for row in kept]
        assert num_matched(pixels, kept, true, 3.7).tolist() == alone
        y, x = np.divmod(pixels[kept[5]], 70)
        mask = np.zeros(true.shape, bool)
        mask[y, x] = True
        near = apart(mask, true) <= 3.7
        i, j = linear_sum_assignment(near, maximize=True)
        assert alone[5] == near[i, j].sum()


def test_a_pair_may_lie_exactly_at_the_limit():
    predicted, true = np.zeros((2, 30, 40), bool)
    true[10, 10] = predicted[13, 14] = True  # 5 px; the diagonal is 50
    for share, expected in ((0.1, 1), (0.0999, 0)):
        assert count(predicted, true, reach_px((30, 40), share)) == expected


# ---------------------------------------------------------------------------------------------------- the metric


def pictures(num=3, size=(15, 19), seed=0):
    """Logits around shifted boundaries, targets with a hole."""
    g = np.random.default_rng(seed)
    t = np.stack([np.abs(noise(seed + i, size, 3) - 0.5) < 0.05 for i in range(num)]).astype(np.float32)[:, None]
    near = np.stack([distance_transform_edt(np.roll(x[0], 1, axis=0) < 0.5) for x in t])[:, None]
    p = 2 - 1.5 * near + 1.2 * g.standard_normal(t.shape)
    t[:, :, :5, :9] = 255
    return torch.from_numpy(p).float(), torch.from_numpy(t)


def measure(task, *batches):
    metric = task.metric()
    for prediction, target in batches:
        metric.update(prediction, target)
    return {name: value.item() for name, value in metric.compute().items()}


def slow_counts(task, prediction, target, threshold):
    """Pairs, predicted and true pixels of one picture, step by step."""
    valid = target[0].numpy() != 255
    mask = slow_thin((task.decode(prediction[None])[0].numpy() > np.float32(threshold)) & valid)
    true = slow_thin(target[0].numpy() == 1) if task.thin_target else target[0].numpy() == 1
    near = apart(mask, true) <= task.max_distance * np.hypot(*true.shape)
    i, j = linear_sum_assignment(near, maximize=True) if near.size else ([], [])
    return np.array([near[i, j].sum(), mask.sum(), true.sum()])


@pytest.mark.parametrize("thin_target", [True, False])
def test_the_metric_equals_brute_force(thin_target):
    task = Edges(protocol="ods", max_distance=0.05, thin_target=thin_target)
    p, t = pictures()
    counts = np.array([[slow_counts(task, a, b, k) for k in HUNDREDTHS] for a, b in zip(p, t, strict=True)])

    def scores(c):
        pr, re = c[..., 0] / np.maximum(c[..., 1], 1), c[..., 0] / np.maximum(c[..., 2], 1)
        return pr, re, 2 * pr * re / np.maximum(pr + re, 1e-12)

    precision, recall, f = scores(counts.sum(0))
    own = sum(c[scores(c)[2].argmax()] for c in counts)
    values = measure(task, (p, t))
    assert task.headline == "ods_f" and 0.3 < values["ods_f"] < 0.95
    assert values["ods_f"] == pytest.approx(f.max())
    assert values["best_threshold"] == pytest.approx(HUNDREDTHS[f.argmax()])
    assert values["ods_precision"] == pytest.approx(precision[f.argmax()])
    assert values["ods_recall"] == pytest.approx(recall[f.argmax()])
    assert [values[f"ois_{k}"] for k in ("precision", "recall", "f")] == pytest.approx([float(x) for x in scores(own)])
    assert values["f_at_0_5"] == pytest.approx(f[49])
    assert values["ois_f"] > values["ods_f"] >= values["f_at_0_5"]
    assert values["ods_f_interpolated"] >= values["ods_f"] - 1e-12


def test_average_precision_by_hand():
    # recall .6 at precision .5, .3 at .8, .1 at 1: two straight pieces at .10, .11 … .60, nothing outside
    recall, precision = np.array([0.6, 0.6, 0.3, 0.1]), np.array([0.5, 0.9, 0.8, 1.0])
    expected = sum(1 - (k - 10) * 0.01 for k in range(10, 31)) + sum(0.8 - (k - 30) * 0.01 for k in range(31, 61))
    assert average_precision(precision, recall) == pytest.approx(expected / 100)
    assert average_precision(np.ones(5), np.zeros(5)) == 0
    assert average_precision(np.ones(2), np.array([1.0, 0.0])) == pytest.approx(1.01), "the reference's of 101 points"


def test_the_best_f_between_thresholds():
    precision, recall = np.array([0.2, 1.0]), np.array([1.0, 0.2])
    assert best_between(precision, recall) == pytest.approx(0.6, abs=1e-4)  # half way, where both are .6


def test_a_pixel_is_matched_once():
    """Two predicted lines beside one true line: a dilated test calls all of them right."""
    t, p = torch.zeros(1, 1, 40, 60), torch.full((1, 1, 40, 60), -9.0)
    t[0, 0, 20, 5:55] = 1
    p[0, 0, [18, 22], 5:55] = 9
    values = measure(Edges(protocol="ods", max_distance=0.03), (p, t))
    assert values["ods_precision"] == pytest.approx(0.5) and values["ods_recall"] == 1
    assert measure(Edges(), (p, t))["f_at_2px"] == 1


def test_thick_predictions_are_thinned():
    t, p = torch.zeros(1, 1, 40, 60), torch.full((1, 1, 40, 60), -9.0)
    t[0, 0, 20, 5:55] = 1
    p[0, 0, 17:24, 5:55] = 9
    values = measure(Edges(protocol="ods", max_distance=0.03), (p, t))
    assert values["ods_precision"] == 1 and values["ods_recall"] > 0.8


def test_ignored_pixels_have_no_effect():
    p, t = pictures()
    other = torch.where(t == 255, 20 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)), p)
    for nms in (False, True):
        task = Edges(protocol="ods", max_distance=0.05, nms=nms)
        assert measure(task, (p, t)) == measure(task, (other, t))
    assert measure(ODS, (p, torch.where(t == 255, 0.0, t))) != measure(ODS, (p, t))


def test_suppression_is_applied_when_asked():
    p, t = pictures(2, (60, 70))
    plain, suppressed = measure(ODS, (p, t)), measure(Edges(protocol="ods", max_distance=0.05, nms=True), (p, t))
    assert 0 < suppressed["ods_f"] != plain["ods_f"]


def test_streaming_reset_and_copies():
    p, t = pictures(4)
    whole = measure(ODS, (p, t))
    assert measure(ODS, (p[:1], t[:1]), (p[1:], t[1:])) == whole
    metric = ODS.metric()
    metric.update(p[:2], t[:2])
    metric.reset()
    metric.update(p, t)
    copied = pickle.loads(pickle.dumps(metric))
    assert {k: v.item() for k, v in copied.compute().items()} == whole
    assert all(v.dtype == torch.float64 and v.shape == () for v in metric.compute().values())


def test_empty_sides():
    p, t = pictures(1)
    nothing = torch.full_like(p, -20)
    assert all(np.isnan(v) for v in measure(ODS, (p, torch.full_like(t, 255))).values())
    values = measure(ODS, (nothing, t))
    assert values["ods_f"] == values["ois_f"] == values["ap"] == 0
    values = measure(ODS, (p, torch.zeros_like(t)))
    assert values["ods_f"] == values["ois_f"] == values["ap"] == 0
    exact = 40 * (t == 1).float() - 20
    assert measure(ODS, (exact, t))["ods_f"] == 1


def test_wrong_options_are_refused():
    for options, name in (
        ({"protocol": "bsds"}, "protocol"),
        ({"processes": 0}, "processes"),
        ({"max_distance": -0.1}, "max_distance"),
    ):
        with pytest.raises(OptionError, match=name):
            Edges(**options)
    assert Edges().headline == "f_at_2px" and "f_at_2px" in measure(Edges(), pictures())


# ---------------------------------------------------------------------------------------------------- processes, time

ONE_OF_TWO = """
import sys, torch
from garnish.tasks.edges import Edges
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
p, t = torch.load(f"{folder}/pictures", weights_only=True)
metric = Edges(protocol="ods", max_distance=0.05).metric()
metric.update(p[rank::2], t[rank::2])
torch.save(metric.compute(), f"{folder}/found{rank}")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow  # tests/test_metrics_ddp.py does it for every task
@pytest.mark.ddp
def test_two_processes_equal_one(tmp_path):
    torch.save(pictures(5), tmp_path / "pictures")
    command = [sys.executable, "-c", ONE_OF_TWO]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=env, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in started:
        _, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
    whole = measure(ODS, pictures(5))
    assert whole["ods_f"] != measure(ODS, [x[::2] for x in pictures(5)])["ods_f"]
    for rank in (0, 1):
        found = {k: v.item() for k, v in torch.load(tmp_path / f"found{rank}", weights_only=True).items()}
        assert found == pytest.approx(whole, rel=1e-12)


@pytest.mark.ddp
def test_pictures_shared_by_processes():
    shared = Edges(protocol="ods", max_distance=0.05, processes=2)
    assert measure(shared, pictures(4)) == measure(ODS, pictures(4))


@pytest.mark.slow
def test_a_picture_takes_about_a_second():
    size = (480, 640)
    g = np.random.default_rng(0)
    cells = [noise(i, size, 30) > 0.5 for i in range(2)]
    ids = cells[0] * 2 + cells[1]
    t = np.zeros(size, np.float32)
    t[:, 1:] = ids[:, 1:] != ids[:, :-1]
    t[1:] = np.maximum(t[1:], ids[1:] != ids[:-1])
    near = distance_transform_edt(np.roll(t, (2, -1), (0, 1)) < 0.5)
    rough = gaussian_filter(g.standard_normal(size), 2)
    p = np.maximum(3 - 1.5 * near, -4) + rough / rough.std()
    metric = Edges(protocol="ods").metric()
    inputs = torch.from_numpy(p).float()[None, None], torch.from_numpy(t)[None, None]
    taken = []
    for _ in range(2):
        start = time.process_time()
        metric.update(*inputs)
        taken.append(time.process_time() - start)
    assert thin(t > 0).sum() > 3000 and metric.compute()["ods_f"] > 0.5
    assert min(taken) < 1.5, taken  # under one on a core of its own
