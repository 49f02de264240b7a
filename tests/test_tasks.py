"""Losses, checks, decoding, painting and files of the tasks, against float64 formulas and other libraries."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from garnish import registry
from garnish.drawing.sheet import draw_sheet
from garnish.errors import DataError, OptionError
from garnish.tasks.depth import Depth
from garnish.tasks.edges import Edges
from garnish.tasks.metrics.delta_m import delta_m
from garnish.tasks.normals import Normals
from garnish.tasks.saliency import Saliency
from garnish.tasks.semantic import Semantic
from garnish.tasks.task import Task

ALL = [
    Semantic(classes=5),
    Semantic(classes=5, class_weights=(0.5, 1.0, 2.0, 0.0, 3.0), focal_gamma=2.0, dice=0.7),
    Semantic(classes=("background", "a", "b", "c", "d"), dice=1.0, cross_entropy=0.0, void_if_only_background=True),
    Semantic(classes=5, f1_class=1, focal_gamma=0.5),
    Depth(),
    Normals(),
    Edges(),
    Saliency(),
]
IDS = ["semantic", "weighted-focal-dice", "parts", "f1", "depth", "normals", "edges", "saliency"]
every_task = pytest.mark.parametrize("task", ALL, ids=IDS)


def random_target(task: Task, pictures: int = 4, size: tuple[int, int] = (9, 13), seed: int = 0) -> Tensor:
    """Labels with holes; the last picture has no label at all."""
    g = torch.Generator().manual_seed(seed)
    hole = torch.rand(pictures, 1, *size, generator=g) < 0.2
    hole[-1] = True
    if isinstance(task, Depth):
        return torch.where(hole, 0.0, torch.rand(hole.shape, generator=g) * 9 + 0.1)
    if isinstance(task, Normals):
        n = torch.nn.functional.normalize(torch.randn(pictures, 3, *size, generator=g), dim=1)
        return torch.where(hole, 0.0, n)
    if isinstance(task, Semantic):
        ids = torch.randint(0, task.channels, (pictures, *size), generator=g)
        return torch.where(hole[:, 0], 255, ids)
    return torch.where(
        hole, 255.0, (torch.rand(hole.shape, generator=g) < (0.05 if isinstance(task, Edges) else 0.3)).float()
    )


def no_labels(task: Task) -> Tensor:
    return torch.full_like(random_target(task), 0 if isinstance(task, Depth | Normals) else 255)


def random_prediction(task: Task, pictures: int = 4, size: tuple[int, int] = (9, 13), seed: int = 1) -> Tensor:
    return 2 * torch.randn(pictures, task.channels, *size, generator=torch.Generator().manual_seed(seed))


def loss_of(task: Task, prediction: Tensor, target: Tensor) -> Tensor:
    return task.loss(task.sums(prediction, target))


# ---------------------------------------------------------------------------------------------------- all tasks


@every_task
def test_sums_of_a_split_batch_add_up(task):
    p, t = random_prediction(task), random_target(task)
    whole = task.sums(p, t)
    parts = task.sums(p[:1], t[:1]) + task.sums(p[1:], t[1:])
    assert whole.dtype == torch.float32 and whole.ndim == 1
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@every_task
def test_loss_is_positive_and_its_gradient_lies_on_labelled_pixels_only(task):
    p, t = random_prediction(task).requires_grad_(), random_target(task)
    value = loss_of(task, p, t)
    value.backward()
    assert value.shape == () and value > 0
    assert p.grad.isfinite().all() and p.grad.abs().sum() > 0
    assert (p.grad[-1] == 0).all(), "the last picture has no label"


@every_task
def test_no_label_gives_zero_loss_and_zero_gradient(task):
    p, t = random_prediction(task).requires_grad_(), no_labels(task)
    value = loss_of(task, p, t)
    value.backward()
    assert value == 0 and (p.grad == 0).all()


@every_task
def test_gradient_is_finite_at_zero_and_at_huge_outputs(task):
    for scale in (0.0, 1e4):
        p = (random_prediction(task) * scale).requires_grad_()
        value = loss_of(task, p, random_target(task))
        value.backward()
        assert value.isfinite() and p.grad.isfinite().all()


@every_task
def test_bfloat16_is_computed_in_float32(task):
    p, t = random_prediction(task).bfloat16(), random_target(task)
    assert torch.equal(task.sums(p, t), task.sums(p.float(), t))
    metric, other = task.metric(), task.metric()
    metric.update(p, t)
    other.update(p.float(), t)
    for name, value in metric.compute().items():
        torch.testing.assert_close(value, other.compute()[name], rtol=1e-12, atol=0, equal_nan=True)


@every_task
def test_training_lowers_the_loss(task):
    t = random_target(task)
    p = torch.zeros_like(random_prediction(task), requires_grad=True)
    before = loss_of(task, p, t).item()
    optimizer = torch.optim.Adam([p], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        loss_of(task, p, t).backward()
        optimizer.step()
    assert loss_of(task, p, t).item() < 0.5 * before


@every_task
def test_options_survive_lookup(task):
    again = registry.build("tasks", type(task).__name__, registry.options_of(task))
    assert again == task


@every_task
def test_valid_targets_pass_and_paint(task):
    for target in random_target(task):
        task.check_target(target, "a.png")
        assert task.paint(target).shape == (9, 13, 3) and task.paint(target).dtype == np.uint8
    decoded = task.decode(random_prediction(task))
    assert task.paint(decoded[0]).shape == (9, 13, 3)


def test_the_folder_holds_these_tasks():
    assert set(registry.classes("tasks")) == {"Semantic", "Depth", "Normals", "Edges", "Saliency", "RelativeDepth"}


# ---------------------------------------------------------------------------------------------------- semantic


def softmax64(logits: Tensor) -> np.ndarray:
    e = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_weighted_focal_and_dice_equal_the_formula():
    task = ALL[1]
    logits, target = random_prediction(task), random_target(task)
    p, t = softmax64(logits).transpose(0, 2, 3, 1), target.numpy()
    valid = t != 255
    p, t = p[valid], t[valid]
    right, w = p[np.arange(len(t)), t], np.array(task.class_weights)[t]
    focal = (w * (1 - right) ** 2 * -np.log(right)).sum() / w.sum()
    onehot = np.eye(5)[t]
    dice = (2 * (p * onehot).sum(0) / (p.sum(0) + onehot.sum(0))).mean()
    assert loss_of(task, logits, target).item() == pytest.approx(focal + 0.7 * (1 - dice), rel=1e-5)


def test_dice_is_over_the_classes_that_the_targets_hold():
    task = Semantic(classes=4, cross_entropy=0.0, dice=1.0)
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[:, :2] = 2
    logits = 60 * torch.nn.functional.one_hot(target, 4).permute(0, 3, 1, 2).float()
    assert loss_of(task, logits, target).item() == pytest.approx(0, abs=1e-6)


def test_cross_entropy_equals_torch():
    weights = (0.2, 1.0, 3.0, 1.0, 0.5)
    task = Semantic(classes=5, class_weights=weights)
    p, t = random_prediction(task), random_target(task)
    expected = torch.nn.functional.cross_entropy(p, t, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(loss_of(task, p, t), expected)


@pytest.mark.reference
def test_focal_of_two_classes_equals_torchvision():
    task = Semantic(classes=2, focal_gamma=1.5)
    z = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(3))
    t = torch.randint(0, 2, z.shape, generator=torch.Generator().manual_seed(4))
    ours = loss_of(task, torch.stack([torch.zeros_like(z), z], 1), t)
    theirs = sigmoid_focal_loss(z, t.float(), alpha=-1, gamma=1.5, reduction="mean")
    torch.testing.assert_close(ours, theirs)


def test_a_picture_of_background_alone_is_void_where_asked():
    on, off = Semantic(classes=3, void_if_only_background=True), Semantic(classes=3)
    p = random_prediction(on, 2)
    t = torch.zeros(2, 9, 13, dtype=torch.long)
    t[1, 2:5] = 1  # the second picture holds a person: its background counts
    t[0, 0, 0] = 255
    torch.testing.assert_close(loss_of(on, p, t), loss_of(off, p[1:], t[1:]))
    metric, alone = on.metric(), off.metric()
    metric.update(p, t)
    alone.update(p[1:], t[1:])
    assert torch.equal(metric.matrix, alone.matrix)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 1}, "1 class;"),
        ({"classes": ("a", "b", "a")}, "a named twice"),
        ({"classes": 3, "class_weights": (1.0,)}, "1 weight, 3 classes"),
        ({"classes": 2, "class_weights": (0.0, 0.0)}, "not all 0"),
        ({"classes": ("road", "crack"), "f1_class": "crak"}, "road, crack"),
        ({"classes": 2, "f1_class": 2}, "no class 2"),
        ({"classes": 2, "focal_gamma": -1.0}, "focal_gamma"),
        ({"classes": 2, "cross_entropy": 0.0}, "both 0"),
    ],
)
def test_semantic_refuses_options(options, words):
    with pytest.raises(OptionError, match=words) as error:
        Semantic(**options)
    assert "\n" not in str(error.value)


def test_class_colours_are_distinct_and_stable():
    colours = np.array(list(Semantic(classes=255).legend().values()))
    assert len(np.unique(colours, axis=0)) == 255
    few = np.array(list(Semantic(classes=21).legend().values())).astype(int)
    apart = np.abs(few[:, None] - few[None]).sum(-1) + 999 * np.eye(21)
    assert apart.min() >= 40
    assert (few == colours[:21]).all()
    assert few.sum(1).min() > 100, "none is close to the black of missing labels"


# ---------------------------------------------------------------------------------------------------- the others


def test_depth_loss_and_decoding():
    task = Depth(max_metres=8.0)
    p, t = random_prediction(task), random_target(task)
    t[0, 0, 0, :6] = torch.tensor([torch.inf, torch.nan, -1.0, 8.0, 655.35, 1e-4])
    metres = 2.0 * np.log1p(np.exp(p.double().numpy()) * (np.e - 1))
    valid = (t > 1e-3).numpy() & (t <= 8).numpy()
    assert loss_of(task, p, t).item() == pytest.approx(np.abs(metres - t.numpy())[valid].mean(), rel=1e-5)
    assert task.decode(torch.zeros(1, 1, 1, 1)).item() == pytest.approx(2.0)
    assert task.decode(torch.full((1, 1, 1, 1), 100.0)).item() == 8.0
    assert task.decode(torch.full((1, 1, 1, 1), -100.0)).item() == pytest.approx(1e-3)


def test_normals_loss():
    task = Normals()
    p, t = random_prediction(task), random_target(task)
    n = p.double().numpy() / np.linalg.norm(p.double().numpy(), axis=1, keepdims=True)
    valid = np.abs(t.numpy()).sum(1) > 0
    expected = np.abs(n - t.numpy()).transpose(0, 2, 3, 1)[valid].mean()
    assert loss_of(task, p, t).item() == pytest.approx(expected, rel=1e-5)
    by_pixels = np.abs(n - t.numpy()).transpose(0, 2, 3, 1)[valid].sum(-1).mean()  # as DeMT's L1Loss divides
    assert 30 * loss_of(task, p, t).item() == pytest.approx(10 * by_pixels, rel=1e-5)


@pytest.mark.parametrize(
    "task", [Edges(), Edges(positive_weight=0.8), Saliency()], ids=["edges", "edges-0.8", "saliency"]
)
def test_balanced_cross_entropy(task):
    p, t = random_prediction(task), random_target(task)
    valid = t.numpy() != 255
    q, y = 1 / (1 + np.exp(-p.double().numpy()[valid])), t.numpy()[valid]
    w = task.positive_weight if isinstance(task, Edges) else (y == 0).mean()
    expected = (w * -np.log(q[y == 1]).sum() + (1 - w) * -np.log(1 - q[y == 0]).sum()) / len(y)
    assert loss_of(task, p, t).item() == pytest.approx(expected, rel=1e-5)


def test_probabilities_are_decoded_once():
    for task in (Edges(), Saliency()):
        assert task.decode(torch.full((1, 1, 1, 1), -20.0)).item() < 1e-6
        assert task.decode(torch.zeros(1, 1, 2, 2)).shape == (1, 2, 2)


def picture(value: float, channels: int = 1, dtype=torch.float32) -> Tensor:
    return torch.full((channels, 4, 5), value, dtype=dtype)


@pytest.mark.parametrize(
    ("task", "target", "words"),
    [
        (
            Semantic(classes=3),
            torch.tensor([[0, 3], [7, 255]]),
            r"ids 3 \(1 pixels\), 7 \(1 pixels\), but the 3 classes are 0 to 2",
        ),
        (Semantic(classes=3), torch.tensor([[0, -1]]), "ids -1"),
        (Semantic(classes=3), picture(1.0), "integer ids"),
        (Depth(), picture(float("nan")), "20 of 20 depths are NaN"),
        (Depth(max_metres=10), picture(1500.0), "exceed max_metres = 10"),
        (Depth(), picture(1.0, 3), "depth \\(1, H, W\\)"),
        (Normals(), picture(1.0, 3), "20 of 20 normals are neither"),
        (Normals(), picture(float("nan"), 3), "not finite"),
        (Normals(), picture(1.0), "normals \\(3, H, W\\)"),
        (Edges(), picture(0.5), "values 0.5"),
        (Saliency(), picture(128.0), "values 128"),
    ],
)
def test_bad_targets_are_named(task, target, words):
    with pytest.raises(DataError, match=words) as error:
        task.check_target(target, "labels/0007.png")
    message = str(error.value)
    assert message.startswith("labels/0007.png: ") and "\n" not in message


@pytest.mark.parametrize(
    "make", [lambda: Depth(max_metres=0), lambda: Edges(positive_weight=1.0), lambda: Edges(tolerance_px=-1)]
)
def test_other_tasks_refuse_options(make):
    with pytest.raises(OptionError):
        make()


@every_task
def test_tasks_are_frozen_and_state_their_weight(task):
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.weight = 2.0
    assert task.loss_weight == task.weight == {Depth: 1, Normals: 10, Edges: 50, Saliency: 5}.get(type(task), 1)


# ---------------------------------------------------------------------------------------------------- files


def test_files_hold_what_was_decoded(tmp_path):
    semantic = Semantic(classes=5)
    ids = semantic.decode(random_prediction(semantic))[0]
    file = semantic.write(ids, tmp_path / "street.v2")
    assert file.name == "street.v2.png"
    assert (np.array(Image.open(file)) == ids.numpy()).all()

    depth = Depth().decode(random_prediction(Depth()))[0]
    depth[0, 0] = 0.0
    depth[0, 1] = 1e-4
    read = np.array(Image.open(Depth().write(depth, tmp_path / "depth")))
    assert read.dtype in (np.uint16, np.int32) and read[0, 0] == 0 and read[0, 1] == 1
    np.testing.assert_allclose(read[1:] / 1000, depth.numpy()[1:], atol=5.1e-4)
    far = Depth(max_metres=100).write(depth * 20, tmp_path / "far")
    assert far.suffix == ".npy"
    np.testing.assert_allclose(np.load(far, allow_pickle=False)[1:], depth.numpy()[1:] * 20)

    normals = Normals().decode(random_prediction(Normals()))[0]
    read = np.array(Image.open(Normals().write(normals, tmp_path / "normals")))
    np.testing.assert_allclose(read.transpose(2, 0, 1) / 255 * 2 - 1, normals.numpy(), atol=1 / 255 + 1e-6)

    for task in (Edges(), Saliency()):
        p = task.decode(random_prediction(task))[0]
        read = np.array(Image.open(task.write(p, tmp_path / type(task).__name__)))
        np.testing.assert_allclose(read / 255, p.numpy(), atol=0.5 / 255 + 1e-6)


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_not_finite_are_painted_without_a_word():
    odd = torch.tensor([[math.nan, math.inf, -math.inf]])
    for task in (Edges(), Saliency(), Depth(max_metres=10), Normals()):
        values = odd[None].expand(3, 1, 3) if isinstance(task, Normals) else odd
        assert task.paint(values if values.ndim == 3 or not isinstance(task, Depth) else values[None]).shape == (
            1,
            3,
            3,
        )
    assert (Normals().paint(odd[None].expand(3, 1, 3)) == 0).all()


def test_missing_labels_are_painted_apart():
    t = torch.tensor([[0, 255]])
    assert (Semantic(classes=2).paint(t)[0, 1] == 0).all() and Semantic(classes=2).paint(t)[0, 0].any()
    near_far = Depth(max_metres=10).paint(torch.tensor([[[0.1, 9.9, 0.0]]]))
    assert near_far[0, 0].sum() > near_far[0, 1].sum() and (near_far[0, 2] == 0).all()
    assert (Edges().paint(torch.tensor([[1.0, 0.0]])) == np.array([[[0], [255]]])).all()
    assert (Saliency().paint(torch.tensor([[1.0, 0.0]])) == np.array([[[255], [0]]])).all()


def test_a_sheet_has_one_cell_per_title_and_row(tmp_path):
    red, blue = np.full((20, 30, 3), (255, 0, 0), np.uint8), np.full((40, 60, 3), (0, 0, 255), np.uint8)
    rows = [[("picture", red), ("depth", blue)], [("depth", red)]]
    file = draw_sheet(rows, tmp_path / "new" / "sheet.png", legend={"road": (1, 200, 3)}, cell_px=60)
    pixels = np.array(Image.open(file))
    count = {c: (pixels == c).all(-1).sum() for c in ((255, 0, 0), (0, 0, 255), (1, 200, 3))}
    assert count[255, 0, 0] == 2 * 60 * 40 and count[0, 0, 255] == 60 * 40 and count[1, 200, 3] > 100


# ---------------------------------------------------------------------------------------------------- Δm


def test_delta_m_refuses_what_it_cannot_compare():
    with pytest.raises(OptionError, match="reference of task a is 0"):
        delta_m({"a": 1.0}, {"a": 0.0}, {"a": True})
    with pytest.raises(OptionError, match="no metric for task b"):
        delta_m({"a": 1.0}, {"a": 1.0, "b": 1.0}, {"a": True, "b": True})
    with pytest.raises(OptionError, match="no reference for task b"):
        delta_m({"a": 1.0, "b": 1.0}, {"a": 1.0}, {"a": True, "b": True})
