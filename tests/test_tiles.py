"""Windows of a picture and their blending: invariants, and outputs whose mean is known without blending anything."""

from __future__ import annotations

from itertools import cycle, pairwise

import numpy as np
import pytest

from garnish.decodings.classes import Classes
from garnish.decodings.directions import Directions
from garnish.decodings.probabilities import Probabilities
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.decodings.unitless_depth import UnitlessDepth
from garnish.errors import OptionError
from garnish.pictures.raster import Window
from garnish.tiles.blending import FinishedMaps, FinishedRaws, fading_in
from garnish.tiles.passes import WholeMaps, planes_reader, run_windows
from garnish.tiles.plan import tile_plan
from garnish.tiles.tiling import Tiling

DECODINGS = {
    "seg": Classes(names=("a", "b", "c")),
    "depth": SoftplusDepth(max_metres=8.0),
    "normals": Directions(),
    "edges": Probabilities(),
}
#: (H, W), tile, overlap, step: odd sides, rows of one pixel, windows that hardly move on, a last window far inward
PLANS = [
    ((100, 131), 32, 8, 4),
    ((33, 32), 32, 10, 8),
    ((1, 90), 32, 0, 1),
    ((90, 1), 16, 5, 3),
    ((57, 64), 20, 19, 4),
    ((65, 41), 24, 15, 7),
    ((40, 90), 64, 12, 32),
    ((5, 7), 64, 12, 32),
    ((64, 65), 33, 16, 1),
]
every = pytest.mark.parametrize(("size", "tile", "overlap", "step"), PLANS)


def blended(
    size, tile, overlap, step, run, *, flip=False, finished=FinishedMaps, picture=None
) -> dict[str, np.ndarray]:
    """Whole maps; ``run`` is given the pixels of a window, which are their own coordinates (row, column)."""
    coordinates = np.moveaxis(np.indices(size), 0, -1) if picture is None else picture
    whole = WholeMaps(size[0])
    tasks = {task: (decoding, finished(decoding)) for task, decoding in DECODINGS.items()}
    run_windows(
        tile_plan(size, tile, overlap, step),
        planes_reader(np.moveaxis(coordinates, -1, 0)),
        run,
        tasks,
        whole,
        flip=flip,
    )
    return whole.maps


def raws_at(rows: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs that are a function of the place in the picture alone."""
    a, b = np.sin(rows / 7 + columns / 11), np.cos(rows / 5 - columns / 3)
    return {
        "seg": np.stack([a, b, 0.3 * a * b]).astype(np.float32) * 4,
        "depth": (3 * a * b)[None].astype(np.float32),
        "normals": np.stack([a, b, 1 + a * a]).astype(np.float32),
        "edges": (4 * a - b)[None].astype(np.float32),
    }


@every
def test_windows_lie_in_the_picture_on_the_grid_and_share_what_was_asked(size, tile, overlap, step):
    plan = tile_plan(size, tile, overlap, step)
    seen = np.zeros(size, int)
    for top, left, height, width in plan.windows:
        assert 0 <= top < top + height <= size[0] and 0 <= left < left + width <= size[1]
        assert max(height, width) <= tile
        seen[top : top + height, left : left + width] += 1
    assert seen.min() >= 1
    for side, stretches in zip(size, (plan.rows, plan.columns), strict=True):
        assert stretches[0].start == 0 and stretches[-1].stop == side
        if step <= tile - overlap:
            assert all(s.start % step == 0 for s in stretches)
            assert all(s.stop - s.start > min(tile, side) - step for s in stretches)
        for before, after in pairwise(stretches):
            assert before.start < after.start and before.stop - after.start >= overlap
            assert (before.shared, before.end) == (after.begin, after.alone), "both fade over the same pixels"
            assert after.start <= after.begin and before.end <= before.stop, "and both of them have run these"
        assert all(s.begin <= s.alone <= s.shared <= s.end for s in stretches)
        assert sum(s.shared - s.begin for s in stretches) == side


def test_weights_of_two_neighbours_add_up_to_one_and_rise_from_nothing():
    for width in (1, 2, 7, 96):
        up = fading_in(width)
        np.testing.assert_allclose(up + up[::-1], 1, atol=1e-7)
        assert (up + (1 - up) == 1).all() and (np.diff(up) > 0).all()
    assert fading_in(96)[0] < 1e-4  # what lies at the border of a window counts for nothing


@every
def test_what_depends_on_the_place_alone_is_as_in_one_pass(size, tile, overlap, step):
    whole = raws_at(*np.indices(size).astype(np.float64))
    for flip in (False, True):
        turns = cycle([False, True] if flip else [False])
        found = blended(size, tile, overlap, step, lambda at, t=turns: local(at, mirrored=next(t)), flip=flip)
        assert (found["seg"] == DECODINGS["seg"].decode(whole["seg"])).mean() > 0.999
        assert found["seg"].dtype == np.uint8
        for task in ("depth", "normals", "edges"):
            expected = DECODINGS[task].decode(whole[task])
            assert found[task].shape == expected.shape and found[task].dtype == np.float32
            np.testing.assert_allclose(found[task], expected, rtol=2e-6, atol=2e-6)


def local(at: np.ndarray, *, mirrored: bool) -> dict[str, np.ndarray]:
    """:func:`raws_at` of a window; of a mirrored one the vectors as they look in a mirror."""
    raws = raws_at(*at.astype(np.float64))
    if mirrored:
        raws["normals"] = raws["normals"] * np.array([-1, 1, 1], np.float32)[:, None, None]
    return raws


@every
@pytest.mark.parametrize("flip", [False, True])
def test_constant_in_constant_out(size, tile, overlap, step, flip):
    def run(at):
        flat = {"seg": [0.1, 0.3, 0.3001], "depth": [0.7], "normals": [0.0, 0.6, -0.8], "edges": [-2.0]}
        return {t: np.broadcast_to(np.float32(v)[:, None, None], (len(v), *at.shape[1:])) for t, v in flat.items()}

    found = blended(size, tile, overlap, step, run, flip=flip)
    assert (found["seg"] == 2).all()
    for task in ("depth", "normals", "edges"):
        assert not np.ptp(found[task], axis=(-2, -1)).any()


def test_between_two_windows_the_mean_moves_from_one_to_the_other_and_elsewhere_it_is_one_alone():
    """Each window says how many there were before it; distances of 1 and more are far from the clamp."""
    calls = iter(range(100))
    inverse = SoftplusDepth(max_metres=8.0)

    def run(at):
        metres = np.full((1, *at.shape[1:]), 1.0 + next(calls), np.float32)
        return raws_at(*at.astype(np.float64)) | {"depth": inverse.raw_of(metres)}

    found = blended((32, 72), 32, 8, 8, run)["depth"]
    np.testing.assert_allclose(found, found[:1].repeat(32, 0), rtol=1e-6)
    row = found[0]  # windows begin at 0, 24, 40 (the last, shifted inward by 8)
    np.testing.assert_allclose(row[:24], 1, rtol=1e-5)
    np.testing.assert_allclose(row[32:44], 2, rtol=1e-5)  # 24 … 56 and 40 … 72 share 40 … 56, of which the middle
    np.testing.assert_allclose(row[52:], 3, rtol=1e-5)
    fade = np.sin(np.pi / 2 * (np.arange(8) + 0.5) / 8) ** 2
    np.testing.assert_allclose(row[24:32], 1 + fade, rtol=1e-5)
    np.testing.assert_allclose(row[44:52], 2 + fade, rtol=1e-5)


@pytest.mark.parametrize("tile", [64, 32])
def test_windows_of_depth_without_a_unit_do_not_fit_each_other_which_is_said(tile, caplog):
    maps = WholeMaps(64)
    tasks = {"near": (UnitlessDepth(larger="nearer"), FinishedMaps(UnitlessDepth(larger="nearer")))}
    picture = np.zeros((3, 64, 48), np.uint8)
    with caplog.at_level("WARNING", "garnish"):
        run_windows(
            tile_plan((64, 48), tile, 8, 8),
            planes_reader(picture),
            lambda at: {"near": np.ones((1, *at.shape[1:]), np.float32)},
            tasks,
            maps,
        )
    assert ("near" in caplog.text and "in each of" in caplog.text) == (tile == 32)


def test_what_goes_wrong_at_the_borders_of_a_window_stays_out_of_the_map():
    """Edges all around each window, as padding makes them; the maximum of two windows would keep every one of them."""

    def run(at):
        frame = np.full(at.shape[1:], -5.0, np.float32)
        frame[[0, -1]] = frame[:, [0, -1]] = 5.0
        return raws_at(*at.astype(np.float64)) | {"edges": frame[None]}

    found = blended((128, 128), 64, 16, 4, run)["edges"]
    assert found[1:-1, 1:-1].max() < 0.02 < 0.9 < found[0].min()


def test_raw_outputs_for_metrics_have_the_map_of_the_values():
    size = (50, 61)
    coordinates = np.indices(size).astype(np.float64)
    found = blended(size, 24, 6, 4, lambda at: raws_at(*at.astype(np.float64)), finished=FinishedRaws)
    for task, decoding in DECODINGS.items():
        assert found[task].shape == (decoding.channels, *size)
        expected = decoding.decode(raws_at(*coordinates)[task])
        assert np.isclose(decoding.decode(found[task]), expected, rtol=1e-5, atol=1e-5).mean() > 0.999


def test_only_bands_are_kept(monkeypatch):
    """A picture 40 windows high: what is held does not grow with it."""
    import tracemalloc

    def peak(height: int) -> int:
        class Dropped:
            rows = 0

            def __call__(self, task, rows):
                Dropped.rows += rows.shape[-2]

        decoding = DECODINGS["seg"]
        plan = tile_plan((height, 64), 32, 8, 8)
        read = lambda w: np.zeros((3, w.height, w.width), np.uint8)  # noqa: E731
        run = lambda at: {"seg": np.zeros((3, *at.shape[1:]), np.float32)}  # noqa: E731
        tracemalloc.start()
        run_windows(plan, read, run, {"seg": (decoding, FinishedMaps(decoding))}, Dropped())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert Dropped.rows == height
        return found

    assert peak(32 * 40) < 1.3 * peak(32 * 4)


def test_auto_runs_small_pictures_whole_and_large_ones_in_windows_on_the_trunks_grid():
    assert Tiling().plan((2048, 2048), 32).count == 1
    plan = Tiling().plan((2048, 2049), 32)
    assert (plan.tile, plan.overlap) == (1024, 96) and str(plan) == "2049x2048 in 9 windows of 1024, overlap 96"
    assert Tiling(tile=None).plan((9000, 9000), 32).count == 1
    plan = Tiling().plan((4000, 3000), 14)
    assert (plan.tile, plan.overlap) == (1022, 84) and all(w.top % 14 == w.left % 14 == 0 for w in plan.windows)
    assert Tiling(tile=256).plan((600, 600), 32).overlap == 32
    assert Tiling(tile=16).plan((60, 60), 32).overlap == 8  # narrower than a stride of the trunk


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tile": 64, "overlap": 64}, "overlap: 64 pixels of windows of 64, so none would move on; set less"),
        ({"overlap": 1024}, "overlap: 1024 pixels of windows of 1024"),
        ({"tile": None, "overlap": 8}, "overlap: 8 of no windows; set tile"),
        ({"tile": 0}, "tile"),
        ({"tile": "all"}, "tile"),
        ({"overlap": -1}, "overlap"),
    ],
)
def test_windows_that_cannot_be_are_refused_in_one_line(options, says):
    with pytest.raises(OptionError, match=says) as caught:
        Tiling(**options)
    assert "\n" not in str(caught.value)


def test_a_reader_gives_windows_channels_first():
    picture = np.arange(60).reshape(4, 5, 3)
    found = planes_reader(picture.transpose(2, 0, 1))(Window(1, 2, 2, 3))
    assert found.shape == (3, 2, 3) and (found == picture[1:3, 2:5].transpose(2, 0, 1)).all()
