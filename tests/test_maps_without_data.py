"""Where no band of a picture has data, maps say that nothing is known: held, in windows, streamed, painted, written."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

import band_cases
import garnish as gn
from garnish import registry
from garnish.decodings.classes import Classes
from garnish.decodings.directions import Directions
from garnish.decodings.probabilities import Probabilities
from garnish.decodings.softplus_depth import SoftplusDepth
from garnish.model.streamed import predict_streamed
from garnish.pictures.given_picture import empty_pixels
from garnish.runtime.asked_graph import AskedGraph
from garnish.tiles.empty_rows import EmptyRows
from garnish.tiles.tiling import Tiling

HEIGHT, WIDTH = 75, 90
#: Of a band of rows, a corner and single pixels; one pixel lacks one band only, and is known.
EMPTY = np.zeros((HEIGHT, WIDTH), bool)
EMPTY[30:41] = EMPTY[60:, 70:] = EMPTY[3, 5] = True


def holed() -> np.ndarray:
    values = band_cases.pictures(1, HEIGHT, WIDTH)[0].numpy().copy()
    values[:, EMPTY] = np.nan
    values[2, 10, 10] = np.nan
    return values


def nothing_at(decoded: np.ndarray, number: float) -> np.ndarray:
    """(H, W) bool, where all values of a map are the number."""
    same = np.isnan(decoded) if np.isnan(number) else decoded == number
    return same if decoded.ndim == 2 else same.all(0)


def test_maps_of_every_task_say_where_nothing_is_known(tmp_path):
    model = band_cases.model("mit", gn.LoRA(rank=2))
    values = holed()
    whole = np.nan_to_num(values, nan=0.4)
    for given in ({}, {"tile": 32, "overlap": 8}, {"flip": True}):
        found = model.predict(np.ascontiguousarray(values.transpose(1, 2, 0)), **given)
        known = model.predict(np.ascontiguousarray(whole.transpose(1, 2, 0)), **given)
        for task in model.tasks:
            nothing = model.tasks[task].decoding.nothing
            np.testing.assert_array_equal(nothing_at(found[task].numpy(), nothing), EMPTY)
            assert not nothing_at(known[task].numpy(), nothing).any()


def test_streamed_files_hold_what_map_files_hold(tmp_path):
    model = band_cases.model("mit", gn.LoRA(rank=2))
    file = tmp_path / "field.tif"
    tifffile.imwrite(file, holed().transpose(1, 2, 0), tile=(16, 16), photometric="minisblack", planarconfig="contig")
    tiling = Tiling(tile=32, overlap=8)
    found = predict_streamed(model, file, tmp_path / "map", None, tiling, lambda line: None)
    held = model.predict(file, tile=32, overlap=8)
    for task, written in found.items():
        decoding = model.tasks[task].decoding
        stored = tifffile.imread(written)
        np.testing.assert_array_equal(stored, decoding.stored(held[task].numpy()))
        if decoding.nothing_stored is not None:
            np.testing.assert_array_equal(stored == decoding.nothing_stored, EMPTY)


@pytest.mark.parametrize("name", sorted(registry.classes("decodings")))
def test_what_is_unknown_covers_no_overlay(name):
    options = {"Classes": {"names": ["a", "b"]}, "UnitlessDepth": {"larger": "nearer"}}.get(name, {})
    decoding = registry.build("decodings", name, options)
    raw = np.random.default_rng(0).normal(size=(decoding.channels, *EMPTY.shape)).astype(np.float32)
    decoded = decoding.decode(raw)
    blank = decoding.blanked(decoded, EMPTY)
    assert blank.dtype == decoded.dtype and decoding.blanked(decoded, None) is decoded
    np.testing.assert_array_equal(blank[..., ~EMPTY], decoded[..., ~EMPTY])
    if name != "UnitlessDepth":  # it covers pictures whole
        assert not decoding.cover(blank)[EMPTY].any()
    painted = decoding.paint(blank)[EMPTY]
    assert (painted == painted[0]).all()
    ids = decoding.class_ids(blank)
    assert ids is None or (ids[0][EMPTY] == 255).all()


def test_probabilities_and_directions_are_written_as_no(tmp_path):
    yes = Probabilities().decode(np.full((1, *EMPTY.shape), 5, np.float32))
    file = Probabilities().write(Probabilities().blanked(yes, EMPTY), tmp_path / "edges")
    np.testing.assert_array_equal(np.asarray(Image.open(file)) == 0, EMPTY)
    ahead = Directions().decode(np.ones((3, *EMPTY.shape), np.float32))
    file = Directions().write(Directions().blanked(ahead, EMPTY), tmp_path / "normals")
    np.testing.assert_array_equal((np.asarray(Image.open(file)) == 128).all(-1), EMPTY)


def test_rows_are_noted_by_windows_in_any_order_and_let_go():
    values = holed()
    seen = EmptyRows(lambda w: values[:, w[0] : w[0] + w[2], w[1] : w[1] + w[3]], WIDTH)
    for top, height in ((0, 40), (28, 40), (55, 20)):
        for left, width in ((40, 50), (0, 50)):
            seen((top, left, height, width))
        if top == 0:
            np.testing.assert_array_equal(seen.of(0, 28), EMPTY[:28])
            seen.finished(28)
    np.testing.assert_array_equal(seen.of(28, 47), EMPTY[28:])
    assert seen.of(45, 5) is None
    assert empty_pixels(np.zeros((3, 4, 4), np.uint8)) is None


@pytest.mark.parametrize(("kind", "tile"), [("float32", None), ("uint16", None), ("float32", 32)])
def test_a_graph_says_it_too(kind, tile):
    bands = gn.Bands(names=("nir", "red"), range=(0, 1000), nodata=0)
    numbers = np.random.default_rng(1).integers(1, 1000, (*EMPTY.shape, 2)).astype(np.uint16)
    numbers[EMPTY], numbers[10, 10, 1] = 0, 0
    by = {"seg": Classes(names=("a", "b")), "depth": SoftplusDepth()}

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {task: np.ones((one.channels, *pixels.shape[1:]), np.float32) for task, one in by.items()}

    asked = AskedGraph(bands, kind, lambda which: run, by, by, Tiling(tile=tile), 8, probabilities=False)
    picture = asked.read(numbers, "field", None)
    found = asked.finish(picture, asked.run(picture, "field"), "field", None)
    for task in by:
        np.testing.assert_array_equal(nothing_at(found[task], by[task].nothing), EMPTY)
