"""Polygons and run lengths as masks, against pycocotools, matplotlib and arithmetic of our own, at odd sizes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from pycocotools import mask as coco

from garnish.data.annotations.coco_runs import mask_of_runs, unpacked_counts
from garnish.data.annotations.filling import FARTHEST, fill_polygons

pytestmark = pytest.mark.reference


def whole(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    mask, (top, left) = fill_polygons(polygons, size)
    full = np.zeros(size, bool)
    full[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return full


def centres(size: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([columns + 0.5, rows + 0.5], -1).reshape(-1, 2)


def drawn(seed: int) -> tuple[list[np.ndarray], tuple[int, int]]:
    """Polygons that reach out of an odd picture; even seeds cross themselves."""
    draw = np.random.default_rng(seed)
    size = (int(draw.integers(1, 70)), int(draw.integers(1, 70)))
    points = draw.uniform(-0.2, 1.2, (int(draw.integers(3, 30)), 2)) * size[::-1]
    if seed % 2:
        angles, radius = np.sort(draw.uniform(0, 2 * np.pi, len(points))), draw.uniform(0.1, 0.8) * min(size)
        points = np.array(size[::-1]) / 2 + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    return [points], size


@pytest.mark.parametrize("seed", range(60))
def test_pixels_are_those_whose_centre_lies_inside(seed):
    polygons, size = drawn(seed)
    theirs = Outline(np.r_[polygons[0], polygons[0][:1]], closed=True).contains_points(centres(size))
    assert (whole(polygons, size) == theirs.reshape(size)).all()


def test_coco_fills_otherwise_only_where_the_outline_passes_by_the_centre():
    """Its polygons are drawn five times as fine and rounded; half a pixel is far more than that moves an outline."""
    differ = same = 0
    for seed in range(120):
        polygons, size = drawn(seed)
        polygons[0] = polygons[0].clip(0, size[::-1])
        ours = whole(polygons, size)
        theirs = coco.decode(coco.frPyObjects([polygons[0].reshape(-1).tolist()], *size))[..., 0].astype(bool)
        same += int((ours & theirs).sum())
        start, end = polygons[0], np.roll(polygons[0], -1, 0)
        along = end - start
        for row, column in np.argwhere(ours != theirs):
            centre = np.array([column + 0.5, row + 0.5])
            length = np.maximum((along**2).sum(1), 1e-12)
            share = (((centre - start) * along).sum(1) / length).clip(0, 1)
            assert np.linalg.norm(centre - start - share[:, None] * along, axis=1).min() < 0.5
            differ += 1
    assert same > 10_000 and differ < 0.1 * same


def test_an_object_is_the_union_of_its_polygons_and_touching_ones_leave_no_gap():
    draw = np.random.default_rng(0)
    for _ in range(20):
        middle = draw.uniform(1, 30, 2)
        corners = np.array([[0, 0], [31, 0], [31, 23], [0, 23]], float)
        parts = [np.stack([middle, corners[k], corners[(k + 1) % 4]]) for k in range(4)]
        parts = [part[::-1] if k % 2 else part for k, part in enumerate(parts)]
        inside = all(0 < m < s for m, s in zip(middle, (31, 23), strict=True))
        count = sum(whole([part], (23, 31)).astype(int) for part in parts)
        if inside:
            assert (count == 1).all()
            assert whole(parts, (23, 31)).all()


def test_halves_of_pixels_are_taken_once():
    """Centres on the outline: those at its left and upper side belong to it."""
    square = np.array([[0.5, 0.5], [3.5, 0.5], [3.5, 2.5], [0.5, 2.5]])
    assert whole([square], (4, 5)).astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0] * 5, [0] * 5]


@pytest.mark.parametrize(
    "points", [[[np.nan, 1], [2, 2], [3, 1]], [[0, 0], [np.inf, 1], [1, 1]], [[0, 0], [1e300, 0], [0, 9]]]
)
def test_numbers_that_are_none_are_refused(points):
    with pytest.raises(ValueError, match="coordinate"):
        fill_polygons([np.array(points, float)], (9, 9))


def test_far_and_tangled_outlines_cost_no_more_than_their_pixels():
    far = np.array([[-FARTHEST, -FARTHEST], [FARTHEST, -FARTHEST], [FARTHEST, FARTHEST], [-FARTHEST, FARTHEST]])
    started = time.process_time()
    assert whole([far], (5, 7)).all()
    assert not whole([np.array([[9, 0], [12, 0], [12, 4.0]])], (5, 7)).any()
    tangled = np.stack([np.arange(200_000) % 300, np.arange(200_000) % 2 * 400], 1).astype(float)
    with pytest.raises(ValueError, match="crosses rows"):
        fill_polygons([tangled], (400, 300))
    assert time.process_time() - started < 5


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_are_read_as_pycocotools_reads_them(seed):
    draw = np.random.default_rng(seed)
    size = (int(draw.integers(1, 40)), int(draw.integers(1, 200)))
    truth = draw.random(size) < draw.choice([0.0, 0.02, 0.5, 0.98, 1.0])
    if seed % 3 == 0:
        truth = np.sort(truth, 0)
    text = coco.encode(np.asfortranarray(truth.astype(np.uint8)))["counts"]
    counts = unpacked_counts(text)
    mask, left = mask_of_runs(counts, size)
    full = np.zeros(size, bool)
    full[:, left : left + mask.shape[1]] = mask
    assert (full == truth).all()
    assert coco.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)["counts"] == text


def test_long_runs_have_several_characters_each():
    truth = np.zeros((5000, 4000), np.uint8, order="F")
    truth[:, 1999:3001] = 1
    counts = unpacked_counts(coco.encode(truth)["counts"])
    assert counts.tolist() == [1999 * 5000, 1002 * 5000, 999 * 5000]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\x00", "character"),
        (b"\xff1", "character"),
        (b"P", "within a number"),
        (b"1P", "within a number"),
        (b"PPPPPPPPPPPP0", "of 13 characters"),
    ],
)
def test_damaged_text_of_run_lengths_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        unpacked_counts(text)


@pytest.mark.parametrize("counts", [[], [5], [13], [-1, 13], [2**62] * 8, [0, 12, 2**40], [6, 7]])
def test_runs_that_do_not_fill_the_picture_are_refused(counts):
    with pytest.raises(ValueError, match="run"):
        mask_of_runs(np.array(counts, np.int64), (3, 4))
