"""Decodings: raw outputs against formulas in float64, and what becomes of a task that names none.

That each task's decoding gives what the task decodes is asked in ``conformance/test_tasks.py``.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import pytest
import torch
from torch import Tensor

import garnish as gn
import tiny
from garnish import registry
from garnish.decodings.classes import Classes
from garnish.decodings.directions import Directions
from garnish.decodings.probabilities import Probabilities
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.drawing.map_files import write_png
from garnish.errors import OptionError
from garnish.targets.distances import Distances
from garnish.tasks.task import Task

RAW = np.array([-1e4, -90.0, -3.0, -1e-3, 0.0, 0.5, 25.0, 1e4], np.float32).reshape(1, 2, 4)


def test_numbers_are_those_of_the_formulas():
    wide = RAW[0].astype(np.float64)
    softplus = np.logaddexp(0, wide + np.log(np.e - 1))
    metres = SoftplusDepth(max_metres=8.0, min_metres=0.01).decode(RAW)
    np.testing.assert_allclose(metres, np.clip(2 * softplus, 0.01, 8.0), rtol=1e-6)
    assert metres[1, 0] == pytest.approx(2.0)  # where heads start: a quarter of the range
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(Probabilities().decode(RAW), 1 / (1 + np.exp(-wide)), rtol=1e-6, atol=1e-40)
    vectors = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    unit = Directions().decode(vectors)
    np.testing.assert_allclose(unit, vectors / np.linalg.norm(vectors.astype(np.float64), axis=0), rtol=1e-6)
    assert not Directions().decode(np.zeros((3, 1, 1), np.float32)).any()
    scores = np.zeros((3, 1, 4), np.float32)
    scores[[1, 2], 0, [1, 2]] = 1.0
    scores[[1, 2], 0, 3] = 1.0  # the first of equal ones
    assert Classes(names=("a", "b", "c")).decode(scores).tolist() == [[0, 1, 2, 1]]


def test_the_largest_floats_decode_without_a_warning():
    edge = np.finfo(np.float32).max
    raw = np.array([-edge, -1e38, 1e38, edge], np.float32).reshape(1, 1, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SoftplusDepth(max_metres=80.0, min_metres=0.5).decode(raw).tolist() == [[0.5, 0.5, 80.0, 80.0]]
        assert Probabilities().decode(raw).tolist() == [[0.0, 0.0, 1.0, 1.0]]
        assert np.isfinite(Directions().decode(np.broadcast_to(raw, (3, 1, 4)))).all()


def test_values_are_those_of_the_formulas_and_lead_back_to_a_raw_output():
    draw = np.random.default_rng(1)
    scores = (5 * draw.normal(size=(4, 6, 7))).astype(np.float32)
    wide = np.exp(scores.astype(np.float64))
    classes = Classes(names=("a", "b", "c", "d"))
    np.testing.assert_allclose(classes.values(scores), wide / wide.sum(0), rtol=1e-5)
    np.testing.assert_allclose(classes.values(classes.raw_of(classes.values(scores))), wide / wide.sum(0), rtol=1e-5)
    assert np.isfinite(classes.raw_of(classes.values(np.float32(1e4) * scores))).all()
    depth = SoftplusDepth(max_metres=8.0, min_metres=0.01)
    inside = depth.values(RAW)[:, 0, 1:]  # what was clamped has no way back but to the bound
    np.testing.assert_allclose(depth.decode(depth.raw_of(depth.values(RAW)))[0, 1:], inside[0], rtol=1e-5)
    shares = Probabilities()
    np.testing.assert_allclose(shares.decode(shares.raw_of(shares.values(RAW))), shares.decode(RAW), atol=1e-7)
    assert np.isfinite(shares.raw_of(np.array([[[0.0, 1.0]]], np.float32))).all()


def test_the_mean_of_two_unit_vectors_points_between_them_and_what_has_no_direction_has_no_vote():
    between = np.array([[[2.0, 0.0, 3.0]], [[0.0, 2.0, 0.0]], [[0.0, 0.0, 4.0]]], np.float32)
    found = Directions().values(between)
    np.testing.assert_allclose(found[:, 0].T, [[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]], atol=1e-7)
    mean = found[:, :, :2].mean(-1, keepdims=True)
    np.testing.assert_allclose(Directions().of_values(mean)[:, 0, 0], [0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    none = Directions().values(np.full((3, 1, 1), 1e-5, np.float32))
    np.testing.assert_allclose(Directions().of_values((none + found[:, :, :1]) / 2)[:, 0, 0], [1, 0, 0], atol=1e-4)
    wall = np.broadcast_to(np.array([0.6, 0.0, -0.8], np.float32)[:, None, None], (3, 2, 2))
    np.testing.assert_allclose(Directions().mirrored(wall)[:, 0, 0], [-0.6, 0, -0.8])  # seen in a mirror
    rows = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    assert Probabilities().mirrored(rows).tolist() == [[[2, 1, 0], [5, 4, 3]]]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("Classes", {"names": ["one"]}, "Classes.names: expected .*2 to 255"),
        ("SoftplusDepth", {"max_metres": 1.0, "min_metres": 2.0}, "max_metres: 1 is not above min_metres 2"),
        ("Classes", {}, "option 'names' is required"),
        ("Probabilities", {"none_colour": [1, 2, 256]}, r"none_colour\[?.*0 to 255|none_colour: expected"),
        ("Probability", {}, "unknown decoding 'Probability'; did you mean 'Probabilities'"),
    ],
)
def test_options_of_strangers_are_refused_in_one_line(name, options, says):
    with pytest.raises(OptionError, match=says) as caught:
        registry.build("decodings", name, options)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class _Bare(Task):
    """A task of others, of which only what is asked below is given."""

    headline: ClassVar[str] = "mae"
    channels: ClassVar[int] = 1
    higher_is_better = False
    target = Distances

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        return torch.stack([(prediction - target).abs().sum(), torch.tensor(float(target.numel()))])

    def loss(self, sums: Tensor) -> Tensor:
        return sums[0] / sums[1]

    def metric(self):
        raise NotImplementedError

    def check_target(self, target: Tensor, where: str) -> None:
        pass

    def decode(self, prediction: Tensor) -> Tensor:
        return prediction[:, 0].float()


@final
@dataclass(frozen=True, kw_only=True)
class _Own(_Bare):
    def paint(self, decoded: Tensor) -> np.ndarray:
        return np.full((*decoded.shape, 3), 7, np.uint8)

    def write(self, decoded: Tensor, path: Path) -> Path:
        return write_png(np.full(decoded.shape, 9, np.uint8), path.with_name(f"{path.name}.own.png"))


def test_a_task_that_paints_and_writes_by_itself_is_predicted(tmp_path):
    task = _Own()
    assert task.decoding is None and task.legend() == {} and task.label_names is None
    model = gn.adapt(tiny.backbone("mit"), gn.BitFit(), {"own": task}).eval()
    maps = model.predict(np.zeros((20, 30, 3), np.uint8))
    assert (maps.painted()["own"] == 7).all()
    names = [file.name for file in maps.write(tmp_path)]
    assert names == ["picture_own.own.png", "picture_sheet.png"]


def test_a_task_that_says_nothing_of_its_maps_is_refused_where_it_is_made():
    with pytest.raises(OptionError, match="_Bare: nothing says how its maps are painted and written; give"):
        _Bare()


def test_decodings_are_found_without_torch():
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'lightning')))\n"
        "from garnish import registry\nprint(sorted(registry.classes('decodings')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['Classes', 'Directions', 'Probabilities', 'SoftplusDepth', 'UnitlessDepth']"
