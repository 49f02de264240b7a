"""What tasks tell beside their metrics, against counting in float64 at odd sizes with pixels that have no label."""

from __future__ import annotations

import csv
import dataclasses
import io
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

import garnish as gn
from garnish.errors import BundleError
from garnish.reporting.class_tables import ClassTable
from garnish.tasks.metrics.totals import Totals
from garnish.training.task_details import TOTALS, gathered_details, keep_details, kept_details, write_details

SIZES = [(37, 53), (1, 7), (24, 24)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(task, size, seed):
    """A raw output and a target of one picture, a third of whose pixels have no label."""
    raw = 2 * torch.randn(1, task.channels, *size, generator=seeded(seed))
    target = task.example(1, size)
    target = torch.rand(target.shape, generator=seeded(seed + 1)) if target.is_floating_point() else target
    none = torch.rand(1, 1, *size, generator=seeded(seed + 2)) < 0.33
    if isinstance(task, gn.Semantic):
        target = torch.randint(task.channels, (1, *size), generator=seeded(seed + 1))
        target[none[:, 0]] = 255
    elif isinstance(task, gn.Depth):
        target = torch.where(none, 0.0, 12 * target)  # some beyond the range
    elif isinstance(task, gn.Normals):
        target = torch.nn.functional.normalize(2 * target - 1, dim=1) * ~none
    else:
        target = torch.where(none, 255.0, (target < 0.3).float())
    return raw, target


def seen(task, sizes=SIZES):
    metric = task.metric_with_details()
    given = [drawn(task, size, 10 * number) for number, size in enumerate(sizes)]
    for raw, target in given:
        metric.update(raw, target)
    return metric, given


def columns(detail) -> dict[str, np.ndarray]:
    head, *rows = csv.reader(io.StringIO(detail.csv()))
    return {name: np.array([float(row[k]) if row[k] else np.nan for row in rows]) for k, name in enumerate(head)}


@pytest.mark.parametrize("classes", [2, 5, 151])
def test_confusion_is_that_of_torchmetrics(classes):
    task = gn.Semantic(classes=classes)
    metric, given = seen(task)
    table, confusion = metric.details()
    judge = MulticlassConfusionMatrix(classes, ignore_index=255)
    for raw, target in given:
        judge.update(raw.argmax(1), target)
    assert (confusion.counts == judge.compute().numpy()).all()
    head, *rows = csv.reader(io.StringIO(confusion.csv()))
    assert head[1:] == [row[0] for row in rows] == list(task.names)
    assert (np.array([row[1:] for row in rows], int) == confusion.counts).all()
    values = {name: float(value) for name, value in metric.compute().items()}
    for name, iou, *_ in table.rows()[1:]:
        assert iou == pytest.approx(values[f"iou/{name}"], abs=1e-15, nan_ok=True)


def test_brief_tables_list_all_classes_or_the_worst():
    few = ClassTable(classes=("a", "b"), counts=np.array([[3, 1], [0, 0]]))
    assert few.brief() == few.rows()
    assert few.rows()[1:] == [["a", 0.75, 1.0, 0.75, 4], ["b", 0.0, 0.0, pytest.approx(np.nan, nan_ok=True), 0]]
    counts = np.diag(np.arange(1, 41)) + np.eye(40, k=1, dtype=int) * 5
    counts[39, 39] = 0
    counts[38, 39] = 0  # the last class is nowhere
    many = ClassTable(classes=tuple(f"c{k}" for k in range(40)), counts=counts).brief()
    listed = [float(row[1]) for row in many[1:-1]]
    assert len(listed) == 12 and listed == sorted(listed) and many[-1][0] == "… 28 more"


def test_depth_by_distance_adds_up_to_the_metric():
    task = gn.Depth(max_metres=10.0, min_metres=0.5)
    metric, given = seen(task)
    (detail,) = metric.details()
    found = columns(detail)
    p = np.concatenate([task.decode(raw).double().numpy().ravel() for raw, _ in given])
    t = np.concatenate([target.double().numpy().ravel() for _, target in given])
    p, t = p[(t >= 0.5) & (t <= 10)], t[(t >= 0.5) & (t <= 10)]
    edges = np.linspace(0.5, 10, 11)
    np.testing.assert_allclose(found["metres from"], edges[:-1], rtol=1e-5)
    for k, (low, high) in enumerate(pairwise(edges)):
        here = (t >= low) & ((t < high) | (k == 9))
        error = p[here] - t[here]
        assert found["pixels"][k] == here.sum() > 0
        want = [np.sqrt((error**2).mean()), (abs(error) / t[here]).mean(), error.mean()]
        np.testing.assert_allclose([found[name][k] for name in ("rmse", "abs_rel", "mean error")], want, rtol=1e-5)
    squares = (found["rmse"] ** 2 * found["pixels"]).sum() / found["pixels"].sum()
    assert squares**0.5 == pytest.approx(float(metric.compute()["rmse"]), rel=1e-5)
    plain = task.metric()
    for raw, target in given:
        plain.update(raw, target)
    assert {k: float(v) for k, v in plain.compute().items()} == {k: float(v) for k, v in metric.compute().items()}
    assert plain.details() == () and set(plain.metric_state) == {"errors", "counts"}  # as comparisons have kept it


def test_angles_of_normals():
    metric, given = seen(gn.Normals())
    (detail,) = metric.details()
    p, t = (np.concatenate([x[k].movedim(1, -1).reshape(-1, 3).double().numpy() for x in given]) for k in (0, 1))
    known = np.linalg.norm(t, axis=1) > 0.5
    p, t = (x[known] / np.linalg.norm(x[known], axis=1, keepdims=True) for x in (p, t))
    angle = np.degrees(np.arccos(np.clip((p * t).sum(1), -1, 1)))
    found = columns(detail)
    assert found["pixels"].tolist() == np.histogram(angle, np.arange(0, 185, 5))[0].tolist()
    np.testing.assert_allclose(found["share of pixels"].sum(), 1, rtol=1e-4)


@pytest.mark.parametrize(
    "task",
    [
        gn.Edges(tolerance_px=0),
        gn.Saliency(),
        gn.Saliency(max_f_at="twentieths"),
        gn.Edges(protocol="ods", thin_target=False),
    ],
    ids=["edges", "saliency", "twentieths", "ods"],
)
def test_precision_and_recall_over_thresholds(task):
    metric, given = seen(task, [(37, 53)])
    (detail,) = metric.details()
    found = columns(detail)
    values = {name: float(value) for name, value in metric.compute().items()}
    best = next(values[name] for name in ("f_at_0px", "max_f", "ods_f") if name in values)
    f = next(column for name, column in found.items() if name.startswith("F"))
    assert f.max() == pytest.approx(best, rel=1e-5)
    if getattr(task, "protocol", "") == "ods":
        return
    ((raw, target),) = given
    probability, true = raw.sigmoid().numpy().ravel(), target.numpy().ravel()
    probability, true = probability[true != 255], true[true != 255] == 1
    at = found["threshold"].astype(np.float32)
    guess = probability >= at[:, None] if getattr(task, "max_f_at", "") == "twentieths" else probability > at[:, None]
    hits, guesses = (guess & true).sum(1), guess.sum(1)
    known = guesses > 0
    np.testing.assert_allclose(found["precision"][known], (hits / np.maximum(guesses, 1))[known], rtol=1e-5)
    np.testing.assert_allclose(found["recall"], hits / true.sum(), rtol=1e-5)


TASKS = {
    "seg": gn.Semantic(classes=3),
    "depth": gn.Depth(),
    "normals": gn.Normals(),
    "edges": gn.Edges(),
    "saliency": gn.Saliency(),
    "relative": gn.RelativeDepth(larger="nearer"),
}


def test_every_drawing_is_svg_and_empty_metrics_draw_nothing():
    for name, task in TASKS.items():
        assert task.metric_with_details().details() == () or name == "seg"
        if name == "relative":
            continue
        for detail in seen(task)[0].details():
            if name != "seg":
                drawing = ET.fromstring(str(detail.chart()))
                assert drawing.tag.endswith("svg") and "nan" not in str(detail.chart())
    empty, confusion = TASKS["seg"].metric_with_details().details()
    assert all(np.isnan(row[1]) for row in empty.rows()[1:]) and confusion.picture().width > 50


def test_details_are_kept_with_their_step_and_nothing_else_is_read(tmp_path):
    metrics = {name: seen(task)[0] for name, task in TASKS.items() if name != "relative"}
    found = gathered_details(metrics)
    keep_details(tmp_path, found, 7)
    again = kept_details(tmp_path, TASKS, 7)
    assert list(again) == list(found.found)
    assert [d.csv() for t in again.values() for d in t] == [d.csv() for t in found.found.values() for d in t]
    assert kept_details(tmp_path, TASKS, 8) == kept_details(tmp_path, TASKS, None) == {}
    assert kept_details(tmp_path, {"seg": gn.Semantic(classes=4)}, 7) == {}
    assert kept_details(tmp_path, TASKS | {"seg": gn.Semantic(classes=4)}, 7) == {}
    data = bytearray((tmp_path / TOTALS).read_bytes())
    data[-3] ^= 1
    (tmp_path / TOTALS).write_bytes(data)
    assert kept_details(tmp_path, TASKS, 7) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        write_details(tmp_path / "file" / "inside", found.found)


def test_a_task_of_ones_own_brings_its_part_and_edits_nothing():
    class Mine(Totals):
        def __init__(self):
            super().__init__()
            self.add_total("pixels", dtype=torch.int64)

        def update(self, prediction, target):
            self.add("pixels", torch.tensor(target.numel()))

        def compute(self):
            return {"pixels": self.pixels}

        def details(self):
            counts = np.array([[int(self.pixels), 0], [0, 1]])
            return (dataclasses.replace(ClassTable(classes=("a", "b"), counts=counts), name="mine"),)

    metric = Mine()
    metric.update(torch.zeros(3, 1), torch.zeros(3, 3))
    assert gathered_details({"own": metric}).found["own"][0].rows()[1][-1] == 9
