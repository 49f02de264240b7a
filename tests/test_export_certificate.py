"""The certificate: what it finds when a file is off by a known amount, and which limits it holds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import exports
import garnish as gn
from garnish.exporting.agreement import Agreement
from garnish.exporting.certificate import beyond, compared, pictures, sizes_to_try, small_sizes
from garnish.exporting.graph import least_side
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


def test_limits_by_precision():
    def facts(relative: float, equal: float):
        one = {"unit": "logits", "largest": 1.0, "mean": 0.0, "relative": relative, "equal_labels": equal, "pixels": 9}
        return {"sizes": [], "tasks": {"seg": one}}

    assert len(list(beyond(facts(1.1e-4, 0.998), "fp32"))) == 2
    assert not list(beyond(facts(0.9e-4, 0.9991), "fp32"))
    assert len(list(beyond(facts(0.1, 0.994), "fp16"))) == 1
    assert not list(beyond(facts(0.1, 0.996), "fp16"))
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
