"""The certificate: what it finds when a file is off by a known amount, and which limits it holds."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import Tensor

import exports
import garnish as gn
import tiny
from garnish.errors import GarnishError
from garnish.exporting.agreement import Agreement
from garnish.exporting.certificate import beyond, compared, holds_for, pictures, sizes_to_try, small_sizes
from garnish.exporting.graph import least_side
from garnish.exporting.own_rounding import check_agreement
from garnish.exporting.running import Runner


def test_classes_count_equal_labels_and_differences_of_logits():
    want = torch.tensor([[[[1.0, 4.0]], [[2.0, -8.0]]]])  # labels 1, 0
    got = torch.tensor([[[[1.0, 4.0]], [[0.5, -8.5]]]])  # labels 0, 0
    found = Agreement(gn.Semantic(classes=2))
    found.add(want, got)
    found.add(want, want)
    assert found.facts == {
        "unit": "logits",
        "largest": 1.5,
        "mean": 2.0 / 8,
        "relative": 1.5 / 8,
        "equal_labels": 0.75,
        "pixels": 4,
    }


def test_depth_is_in_metres_and_normals_in_degrees():
    depth = gn.Depth(max_metres=10.0)
    raw = torch.tensor([[[[0.0, 1.0]]]])
    found = Agreement(depth)
    found.add(raw, raw + 0.01)
    metres = depth.decode(raw + 0.01) - depth.decode(raw)
    assert found.facts["unit"] == "metres" and found.facts["equal_labels"] is None
    assert found.facts["largest"] == pytest.approx(float(metres.max()), rel=1e-5)
    turned = Agreement(gn.Normals())
    angle = math.radians(3)
    turned.add(
        torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1),
        5 * torch.tensor([math.cos(angle), math.sin(angle), 0]).view(1, 3, 1, 1),
    )
    assert turned.facts["largest"] == pytest.approx(3, rel=1e-5)


def test_yes_and_no_are_labels_too():
    found = Agreement(gn.Edges())
    found.add(torch.tensor([[[[0.1, -1.0, 2.0, 3.0]]]]), torch.tensor([[[[-0.1, -1.0, 2.0, 3.0]]]]))
    assert found.facts["unit"] == "probability" and found.facts["equal_labels"] == 0.75


class Off(Runner):
    """The model, whose outputs are changed where pictures are of a size."""

    def __init__(self, model, change, sizes=None):
        self.model, self.change, self.sizes = model, change, sizes

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            found = tuple(self.model(images).values())
        off = self.sizes is None or tuple(images.shape[2:]) in self.sizes
        return tuple(map(self.change, found)) if off else found


@pytest.fixture(scope="module")
def model():
    return exports.model("cnn", gn.Frozen(), {"seg": gn.LinearHead(), "depth": gn.LinearHead()})


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda x: x, []),
        (lambda x: x * 1.001, ["'seg' differs", "'depth' differs"]),
        (lambda x: x * torch.nan, ["'seg' are not finite", "'depth' are not finite"]),
        (lambda x: x[..., :-1], ["'seg' are not finite, or not of", "'depth' are not finite, or not of"]),
        (lambda x: x + 1e-7 * x.sign(), []),
        (lambda x: x.flip(1), ["'seg' differs", "'seg' has"]),
    ],
)
def test_a_fault_at_one_size_is_found(model, change, lines):
    sizes = [(1, 40, 50), (2, 33, 64)]
    found = compared(model, Off(model, change, [(33, 64)]), tuple(model.tasks), sizes, torch.uint8)
    assert found["sizes"] == [list(size) for size in sizes]
    told = list(beyond(found, "fp32"))
    assert len(told) == len(lines)
    assert all(part in line for part, line in zip(lines, told, strict=True))


def test_what_is_not_finite_on_either_side_never_agrees():
    for task in (gn.Semantic(classes=3), gn.Depth(), gn.Normals(), gn.Saliency()):
        one, other = torch.ones(1, task.channels, 2, 2), torch.ones(1, task.channels, 2, 2)
        one[0, 0, 0, 1] = torch.nan
        for want, got in ((one, other), (other, one), (one, one)):
            agreement = Agreement(task)
            agreement.add(want, got)
            assert agreement.facts["relative"] == float("inf")


def test_a_model_that_is_not_finite_by_itself_is_told(model):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in broken.head_tensors("seg").values():
            tensor.fill_(3e38)  # finite, which their sums are not
    run = Off(broken, lambda x: x.nan_to_num())
    with pytest.raises(GarnishError, match=r"the model's own output of task 'seg' is not finite .* 40x30; train it"):
        compared(broken, run, ("seg", "depth"), [(1, 30, 40)], torch.uint8)


def test_a_graph_that_fails_at_small_sizes_does_not_hold_there(model):
    def fails(images):
        raise RuntimeError("a side of 1")

    assert not holds_for(model, fails, ("seg", "depth"), [(1, 30, 40)], torch.uint8)
    assert holds_for(model, Off(model, lambda x: x), ("seg", "depth"), [(1, 30, 40)], torch.uint8)


def test_a_refusal_says_how_far_the_model_itself_is_from_float64(model):
    def told(of, relative):
        wild = {"relative": relative, "equal_labels": None}
        found = {"sizes": [[1, 64, 64]], "tasks": {"seg": wild, "depth": {**wild, "relative": 1e-6}}}
        check_agreement(of, found, "fp32", torch.uint8, "export")

    torch.manual_seed(0)
    bad = gn.adapt(tiny.backbone("swin"), gn.LoRA(), {t: exports.TASKS[t] for t in ("seg", "depth")}, gn.LinearHead())
    with torch.no_grad():
        for parameter in bad.trained_parameters().values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    bad.eval().requires_grad_(False)
    images = pictures(1, 64, 64, 0, torch.uint8)
    exact, found = copy.deepcopy(bad).double()(images)["seg"], bad(images)["seg"]
    off = float((exact - found).abs().max() / exact.abs().max())
    assert off > 3e-5  # the trunk is wild: its norms divide by next to nothing
    with pytest.raises(GarnishError, match=re.escape(f"float64 ('seg' by {off:.2g}): it is this model that rounds")):
        told(bad, 3 * off)
    with pytest.raises(GarnishError, match="which does not explain it: the graph computes something else; nothing"):
        told(model, 3 * off)
    told(bad, 0.9e-4)


def test_limits_by_precision():
    def facts(relative: float, equal: float | None):
        one = {"unit": "logits", "largest": 1.0, "mean": 0.0, "relative": relative, "equal_labels": equal, "pixels": 9}
        return {"sizes": [], "tasks": {"seg": one}}

    assert len(list(beyond(facts(1.1e-4, 0.998), "fp32"))) == 2
    assert not list(beyond(facts(0.9e-4, 0.9991), "fp32"))
    assert len(list(beyond(facts(0.1, 0.994), "fp16"))) == 1
    assert not list(beyond(facts(0.1, 0.996), "fp16"))
    assert not list(beyond(facts(0.019, None), "fp16")) and not list(beyond(facts(0.5, None), "int8"))
    (line,) = beyond(facts(0.021, None), "fp16")  # of depth, whose labels cannot be counted
    assert line == "'seg' differs by 0.021 of its largest value, more than 0.02"
    assert not list(beyond(facts(0.1, 0.9), "int8"))
    measured = {"name": "d", "pictures": 1, "tasks": {}, "before": {"seg": {"miou": 0.5}}, "after": {"seg": {}}}
    for miou, count in ((0.4951, 0), (0.4949, 1), (0.6, 0)):
        measured["after"]["seg"]["miou"] = miou
        assert len(list(beyond({**facts(0.1, 0.9), "data": measured}, "int8"))) == count


@pytest.mark.parametrize("short", exports.TRUNKS)
def test_sizes_are_odd_large_and_small(short):
    trunk = exports.trunk(short)
    least, step = least_side(trunk), trunk.multiple
    tried = sizes_to_try(trunk)
    assert len(tried) >= 8 and all(min(h, w) >= least for _, h, w in tried)
    assert {n for n, _, _ in tried} >= {1, 3}
    assert any(h % 2 and w % 2 for _, h, w in tried)
    # beyond every table of positions and window that a released model has, both ways
    assert max(h for _, h, _ in tried) > 24 * 32 and max(w for _, _, w in tried) > 24 * 32
    small = small_sizes(trunk)
    assert (1, 1, 1) in small and all(min(h, w) < least for _, h, w in small)
    grids = {(-(-h // step) == 1, -(-w // step) == 1) for _, h, w in small}
    assert grids >= {(True, True), (True, False), (False, True)}


def test_pictures_have_the_range_of_their_kind():
    whole, real = pictures(2, 30, 41, 0, torch.uint8), pictures(2, 30, 41, 0, torch.float32)
    assert whole.dtype == torch.uint8 and int(whole.max()) > 180 and int(whole.min()) < 70
    assert torch.equal((real * 255).round().byte(), whole)
