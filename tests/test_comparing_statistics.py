"""Totals by picture and the bootstrap, against plain numpy, scipy's bootstrap, closed forms and ``evaluate``."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torchmetrics import Metric

import garnish as gn
from garnish.comparing.analysis.statistics import (
    delta_m_draws,
    gap_draws,
    gap_recovered,
    headline_draws,
    interval,
    paired_interval,
    per_picture,
    resamples,
    spread,
    void_reason,
    void_share,
)
from garnish.comparing.analysis.totals_by_picture import (
    PictureTotals,
    evaluate_by_picture,
    load_totals,
    metrics_of,
    save_totals,
)
from garnish.errors import BundleError, DataError, OptionError
from garnish.tasks.edges import Edges
from garnish.tasks.semantic import Semantic
from test_tasks import ALL, IDS, random_prediction, random_target
from training_cases import PARTIAL, TASKS, Blobs, every, moved, tiny

KINDS = [*ALL, Edges(protocol="ods", max_distance=0.1), gn.Saliency(iou_threshold=0.4, f_threshold=0.3)]
each_kind = pytest.mark.parametrize("task", KINDS, ids=[*IDS, "ods", "chosen"])


def totals_of(task, predictions, targets) -> PictureTotals:
    """Made here by one fresh metric a picture, apart from ``measure``."""
    rows = []
    for p, t in zip(predictions, targets, strict=True):
        metric = task.metric()
        metric.update(p[None], t[None])
        rows.append({name: getattr(metric, name).clone() for name in metric.metric_state})
    states = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return PictureTotals(tuple(f"p{i}" for i in range(len(rows))), states)


def pictures_of(task, count=6, seed=0):
    return random_prediction(task, count, seed=seed + 50), random_target(task, count, seed=seed)


def measured(task, predictions, targets, order) -> dict[str, float]:
    """The metric itself, updated with the pictures of ``order`` one by one."""
    metric = task.metric()
    for i in order:
        metric.update(predictions[i : i + 1], targets[i : i + 1])
    return {name: float(value) for name, value in metric.compute().items()}


# ------------------------------------------------------------------------------------------------- metrics of counts


@each_kind
def test_once_each_is_the_metric_to_the_last_bit(task):
    p, t = pictures_of(task)
    expected = measured(task, p, t, range(6))
    assert task.headline in expected
    for counts in (None, torch.ones(6, dtype=torch.int64)):
        found = metrics_of(task, totals_of(task, p, t), counts)
        assert list(found) == list(expected)
        assert all(found[k] == expected[k] or (math.isnan(found[k]) and math.isnan(expected[k])) for k in expected)


@each_kind
def test_counts_are_repeated_pictures(task):
    p, t = pictures_of(task)
    totals = totals_of(task, p, t)
    counts = np.array([[2, 0, 3, 1, 0, 0], [0, 1, 0, 0, 4, 1], [0, 0, 0, 0, 0, 6]])
    orders = [np.repeat(np.arange(6), row) for row in counts]
    expected = [measured(task, p, t, order) for order in orders[:2]]
    for row, values in zip(counts, expected, strict=False):
        found = metrics_of(task, totals, torch.from_numpy(row))
        assert found == pytest.approx(values, rel=1e-12, nan_ok=True)
    draws = headline_draws(task, [totals], counts)
    assert draws[:2] == pytest.approx([values[task.headline] for values in expected], rel=1e-12)
    assert math.isnan(draws[2])  # the last picture has no label


@each_kind
def test_pictures_alone(task):
    p, t = pictures_of(task)
    alone = per_picture(task, totals_of(task, p, t))
    assert math.isnan(alone[-1])
    assert alone[:-1] == [measured(task, p, t, [i])[task.headline] for i in range(5)]


def test_pooled_miou_of_a_draw_by_numpy():
    task = Semantic(classes=5)
    p, t = pictures_of(task, 7)
    ids, true = p.argmax(1).numpy(), t.numpy()
    counts = resamples(7, 20, seed=4)
    expected = []
    for row in counts:
        order = np.repeat(np.arange(7), row)
        a, b = ids[order], true[order]
        a, b = a[b != 255], b[b != 255]
        with np.errstate(invalid="ignore"):
            iou = [np.sum((a == k) & (b == k)) / np.sum((a == k) | (b == k)) for k in range(5)]
        expected.append(np.nanmean(iou))
    assert headline_draws(task, [totals_of(task, p, t)], counts) == pytest.approx(expected, rel=1e-12)


def test_large_counts_are_exact():
    task = Semantic(classes=2)
    matrix = torch.tensor([[[2**45 + 1, 3], [5, 2**44 + 7]]] * 3)
    found = headline_draws(task, [PictureTotals(("a", "b", "c"), {"matrix": matrix, "thin": torch.zeros(3, 4).long()})],
                           np.array([[1, 1, 1], [0, 3, 0]]))  # fmt: skip
    first, second = 3 * (2**45 + 1), 3 * (2**44 + 7)
    expected = (first / (first + 24) + second / (second + 24)) / 2
    assert found.tolist() == [expected, expected]


def test_mean_over_seeds_and_the_same_pictures():
    task = gn.Depth()
    seeds = [totals_of(task, *pictures_of(task, seed=s)) for s in (0, 1)]
    counts = resamples(6, 9)
    one, two = (headline_draws(task, [s], counts) for s in seeds)
    assert headline_draws(task, seeds, counts) == pytest.approx((one + two) / 2, rel=1e-15, nan_ok=True)
    other = PictureTotals(("x", *seeds[0].pictures[1:]), seeds[0].states)
    with pytest.raises(DataError, match="different pictures; measure all on the same data"):
        headline_draws(task, [seeds[0], other], counts)
    with pytest.raises(DataError, match="different pictures"):
        headline_draws(task, seeds, resamples(5, 9))


# --------------------------------------------------------------------------------------------------------- bootstrap


def means(values: np.ndarray) -> tuple[gn.Saliency, PictureTotals]:
    """Totals of a metric whose headline is the plain mean of ``values``."""
    task = gn.Saliency(iou_threshold=0.5)
    metric = task.metric()
    states = {
        name: torch.zeros(len(values), *zero.shape, dtype=zero.dtype) for name, zero in metric.metric_state.items()
    }
    states["pictures"][:] = 1
    states["iou"][:] = torch.from_numpy(values)[:, None]
    return task, PictureTotals(tuple(map(str, range(len(values)))), states)


def test_resamples():
    counts = resamples(40, 3000, seed=7)
    assert counts.shape == (3000, 40) and counts.dtype == np.int64
    assert (counts.sum(1) == 40).all() and counts.min() == 0
    assert np.array_equal(counts, resamples(40, 3000, seed=7)) and not np.array_equal(
        counts, resamples(40, 3000, seed=8)
    )
    # each count is binomial(P, 1/P)
    assert counts.mean() == 1 and counts.var() == pytest.approx(1 - 1 / 40, rel=0.02)
    assert np.mean(counts == 0) == pytest.approx((1 - 1 / 40) ** 40, rel=0.02)
    with pytest.raises(OptionError, match="0 pictures"):
        resamples(0)


def test_the_interval_of_a_mean_is_scipys_and_the_closed_form():
    values = np.random.default_rng(1).uniform(size=60)
    task, totals = means(values)
    draws = headline_draws(task, [totals], resamples(60, 8000))
    assert draws.std() == pytest.approx(values.std() / 60**0.5, rel=0.03)
    low, high = interval(draws)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=8000, method="percentile", random_state=1)
    width = high - low
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)
    assert width == pytest.approx(2 * 1.96 * values.std() / 60**0.5, rel=0.05)
    narrow = interval(draws, 0.5)
    assert narrow[1] - narrow[0] == pytest.approx(2 * 0.6745 * values.std() / 60**0.5, rel=0.06)


def test_pairing_takes_out_what_makes_a_picture_hard():
    generator = np.random.default_rng(2)
    hard = generator.uniform(size=50)
    a, b = 0.5 * hard + 0.01 * generator.uniform(size=50), 0.5 * hard
    counts = resamples(50, 8000)
    task, totals = means(a)
    drawn_a, drawn_b = (headline_draws(task, [t], counts) for t in (totals, means(b)[1]))
    low, high = paired_interval(drawn_a, drawn_b)
    theirs = scipy.stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, n_resamples=8000, method="percentile",
        random_state=3, vectorized=True,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (high - low))
    unpaired = interval(drawn_a - headline_draws(task, [means(b)[1]], resamples(50, 8000, seed=9)))
    assert unpaired[1] - unpaired[0] > 20 * (high - low)


def test_intervals_drop_what_is_not_finite():
    draws = np.array([math.nan, 1.0, 2.0, 3.0, math.inf])
    assert interval(draws, 0.5) == (1.5, 2.5)
    assert void_share(draws) == 0.4
    assert interval(np.array([math.nan])) is None
    with pytest.raises(OptionError, match=r"level 95.*such as 0\.95"):
        interval(draws, 95)


def test_delta_m_draws_by_hand():
    arm = {"seg": np.array([0.55, 0.6, 0.5, 0.5]), "depth": np.array([0.9, 1.2, 1.0, 1.0])}
    reference = {"seg": np.array([0.5, 0.5, 0.0, 0.5]), "depth": np.array([1.0, 1.0, 1.0, math.nan])}
    found = delta_m_draws(arm, reference, {"seg": True, "depth": False})
    # (10 + 10) / 2, (20 − 20) / 2, void, void
    assert found[:2] == pytest.approx([10.0, 0.0], abs=1e-12)
    assert np.isnan(found[2:]).all()
    assert delta_m_draws(reference | {"seg": arm["seg"]}, reference, {"seg": True, "depth": False})[0] == pytest.approx(
        5
    )


@pytest.mark.parametrize(
    ("arm", "frozen", "full", "up", "expected"),
    [
        (0.6, 0.5, 0.7, True, 0.5),
        (0.8, 0.5, 0.7, True, 1.5),
        (0.4, 0.5, 0.7, True, -0.5),
        (2.0, 3.0, 1.0, False, 0.5),
        (4.0, 3.0, 1.0, False, -0.5),
        (0.5, 3.0, 1.0, False, 1.25),
    ],
)
def test_gap_recovered_signs(arm, frozen, full, up, expected):
    value, void = gap_recovered(arm, frozen, full, up)
    assert value == pytest.approx(expected) and void is None
    draws = gap_draws(np.array([arm]), np.array([frozen]), np.array([full]), up)
    assert draws.tolist() == [value]


@pytest.mark.parametrize(("frozen", "full", "up"), [(0.7, 0.6, True), (0.7, 0.7, True), (1.0, 1.5, False)])
def test_gap_recovered_is_void_where_full_is_no_better(frozen, full, up):
    value, void = gap_recovered(0.65, frozen, full, up)
    assert value is None
    assert void == f"full fine-tuning ({full:g}) is not better than the frozen trunk ({frozen:g})"
    draws = gap_draws(*(np.array([x, y]) for x, y in ((0.65, 2.0), (frozen, 3.0), (full, 4.0 if up else 2.0))), up)
    assert np.isnan(draws[0]) and draws[1] == (-1 if up else 1)
    assert void_share(draws) == 0.5 and "in 50 % of the resampled test sets" in void_reason(draws)


def test_the_gap_is_void_where_the_interval_of_full_minus_frozen_reaches_zero():
    generator = np.random.default_rng(0)
    frozen = np.full(4000, 0.5)
    for lead, void in ((2.5, False), (1.5, True)):  # in standard deviations; 1.96 leave 2.5 % below zero
        full = frozen + generator.normal(0.01 * lead, 0.01, 4000)
        reason = void_reason(gap_draws(frozen + 0.1, frozen, full, True))
        assert (reason is not None) == void == (interval(full - frozen)[0] < 0)


def test_gap_of_nothing_measured():
    assert gap_recovered(0.5, math.nan, 0.7, True) == (None, "frozen has no finite metric")
    assert np.isnan(gap_draws(np.array([0.5]), np.array([math.nan]), np.array([0.7]), True)).all()


def test_spread():
    found = spread([1.0, None, 4.0, math.nan])
    assert (found.mean, found.least, found.most, found.values) == (2.5, 1.0, 4.0, (1.0, None, 4.0, None))
    assert spread([None]).mean is None


# ------------------------------------------------------------------------------------------------------- measurement


@pytest.fixture(scope="module")
def model():
    return moved(tiny())


def test_measure_is_evaluate(model):
    data = Blobs(PARTIAL, sizes=((48, 64), (32, 48), (40, 56)))
    expected = gn.evaluate(model, data)
    found, totals = evaluate_by_picture(model, data)
    assert found == expected
    assert totals["seg"].pictures == tuple(f"blob{i}" for i in range(16))
    labelled = torch.tensor(["depth" in labels for labels in PARTIAL])
    assert torch.equal(totals["depth"].states["counts"][:, 0] > 0, labelled)
    together, kept = evaluate_by_picture(model, data, batch_size=3)
    assert together["seg"] == pytest.approx(gn.evaluate(model, data, batch_size=3)["seg"], rel=1e-12)
    assert kept["seg"].pictures == totals["seg"].pictures  # sizes come out of order, rows do not
    torch.testing.assert_close(kept["depth"].states["errors"], totals["depth"].states["errors"], rtol=1e-4, atol=1e-6)
    one = Blobs(PARTIAL[:1], sizes=((48, 64),))
    assert metrics_of(TASKS["seg"], totals["seg"], torch.eye(16).long()[0]) == gn.evaluate(model, one)["seg"]


def test_measure_some_tasks_at_a_size_and_the_model_is_left_as_it_was(model):
    data = Blobs(every(3))
    model.train()
    found, totals = evaluate_by_picture(model, data, tasks=["depth"], size=(32, 32))
    assert model.training and list(totals) == ["depth"]
    assert found == gn.evaluate(model, data, tasks=["depth"], size=(32, 32))
    with pytest.raises(OptionError, match="batch_size 0; set 1 or more"):
        evaluate_by_picture(model, data, batch_size=0)
    with pytest.raises(DataError, match="no pictures"):
        evaluate_by_picture(model, Blobs([]))


class Last(Metric):
    """Somebody's metric that does not add up."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("last", torch.tensor(0.0), dist_reduce_fx=None)

    def update(self, prediction, target) -> None:
        self.last = prediction.mean()

    def compute(self):
        return {"miou": self.last}


def test_a_metric_of_another_make_has_no_totals(model, monkeypatch, tmp_path):
    monkeypatch.setattr(Semantic, "metric", lambda self: Last())
    data = Blobs(every(2))
    found, totals = evaluate_by_picture(model, data)
    assert totals["seg"] is None and totals["depth"] is not None
    assert found == gn.evaluate(model, data)
    kept = load_totals(save_totals(tmp_path / "totals.safetensors", totals))
    assert kept["seg"] is None and kept["depth"] is not None


def test_totals_are_read_back_bit_for_bit(model, tmp_path):
    _, totals = evaluate_by_picture(model, Blobs(PARTIAL))
    path = save_totals(tmp_path / "totals.safetensors", totals)
    kept = load_totals(path)
    assert list(kept) == list(totals)
    for name, theirs in totals.items():
        assert kept[name].pictures == theirs.pictures
        for state, value in theirs.states.items():
            assert kept[name].states[state].dtype == value.dtype and torch.equal(kept[name].states[state], value)
    assert evaluate_by_picture(model, Blobs(PARTIAL))[0]["seg"] == metrics_of(TASKS["seg"], kept["seg"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BundleError, match="damaged"):
        load_totals(path)
    from garnish.bundles.checkpoint import save_state

    with pytest.raises(BundleError, match="no totals by picture"):
        load_totals(save_state(tmp_path / "other.safetensors", {}, {}))
