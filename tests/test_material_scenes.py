"""Scenes in ten bands: what is asked shows outside red, green and blue, and not in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from garnish.data.scenes.material_scenes import MaterialScenes
from garnish.data.scenes.materials import BAND_NAMES, SPECTRA, render_bands
from garnish.data.scenes.render import render
from garnish.data.sources import open_data
from garnish.errors import OptionError


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    """(H·W, 10) numbers and (H·W,) materials of some scenes."""
    found = (render_bands(3, index, 48) for index in range(16))
    return [(stored.reshape(-1, 10) / 255, ids.ravel()) for _, stored, ids in found]


def test_red_green_and_blue_are_those_of_the_scene_without_materials():
    """So nothing of a material can show there: they are equal, bit by bit, whatever it is."""
    for index in range(3):
        plain = render(3, index, 48)
        scene, stored, ids = render_bands(3, index, 48)
        assert np.array_equal(stored[..., [2, 1, 0]], plain.image) and np.array_equal(scene.image, plain.image)
        assert np.array_equal(scene.depth, plain.depth)
        # one material a surface
        for surface in np.unique(scene.instances):
            assert len(np.unique(ids[scene.instances == surface])) == 1


def fitted(scenes: list[tuple[np.ndarray, np.ndarray]], columns: slice) -> float:
    """Share of pixels of the last scenes that least squares on the first ones name rightly, from a few columns."""

    def features(values: np.ndarray) -> np.ndarray:
        held = values[:, columns]
        return np.concatenate([held, held**2, np.ones((len(held), 1))], 1)

    first, last = scenes[:12], scenes[12:]
    x, y = (np.concatenate(parts) for parts in zip(*first, strict=True))
    weights = np.linalg.lstsq(features(x), np.eye(len(SPECTRA))[y], rcond=None)[0]
    return float(np.mean([np.mean((features(v) @ weights).argmax(1) == ids) for v, ids in last]))


def test_what_is_asked_shows_outside_rgb_alone(scenes):
    assert fitted(scenes, slice(3, 10)) > 0.9
    most = max(np.bincount(np.concatenate([ids for _, ids in scenes])) / sum(len(ids) for _, ids in scenes))
    assert fitted(scenes, slice(0, 3)) < most + 0.1


def test_bands_follow_the_spectra(scenes):
    """Of each pair of bands the brighter one of a material is that of its spectrum."""
    values, ids = (np.concatenate(parts) for parts in zip(*scenes, strict=True))
    at = {name: number for number, name in enumerate(BAND_NAMES)}
    for number, spectrum in enumerate(SPECTRA.values()):
        mean = values[ids == number].mean(0)
        for one, other in (("nir", "rededge1"), ("swir1", "swir2")):
            apart = spectrum[at[one] - 3] - spectrum[at[other] - 3]
            if abs(apart) > 0.05:
                assert np.sign(mean[at[one]] - mean[at[other]]) == np.sign(apart)


def test_as_data():
    data = open_data({"name": "material-scenes", "train": 4, "size": 32})
    assert isinstance(data, MaterialScenes) and data.bands.names == BAND_NAMES and not data.bands.is_rgb
    sample = data[1]
    assert sample.image.shape == (10, 32, 32) and sample.image.dtype == torch.float32
    _, stored, ids = render_bands(0, 1, 32)
    np.testing.assert_allclose(sample.image.numpy(), stored.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert np.array_equal(sample.targets["material"].numpy(), ids) and data[1] is sample
    rgb = open_data({"name": "material-scenes", "train": 4, "size": 32, "bands": "rgb"})
    assert rgb.bands.is_rgb and rgb[1].image.dtype == torch.uint8
    assert np.array_equal(rgb[1].targets["material"].numpy(), ids)
    assert len({data.key(0), data.key(1), rgb.key(0), open_data("material-scenes", "val").key(0)}) == 4
    assert [len(open_data("material-scenes", split)) for split in ("train", "val", "test")] == [200, 40, 40]


@pytest.mark.parametrize(
    "given, tasks, told",
    [
        ({"name": "scenes", "bands": "ten"}, None, "bands: 'ten' is for material-scenes; leave it out"),
        ({"name": "material-scenes", "bands": "nine"}, None, "bands"),
        ({"name": "material-scenes", "style": "old"}, None, "unknown style 'old'"),
        ("material-scenes", ["seg"], "material-scenes: unknown task 'seg'.*material"),
    ],
)
def test_what_there_is_not(given, tasks, told):
    with pytest.raises(OptionError, match=told):
        open_data(given, tasks=tasks)
