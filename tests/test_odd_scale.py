"""A picture on another scale than those of training is told, once; dark, bright and even ones are not."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import band_cases as cases
import garnish as gn
from garnish.pictures import odd_scale as module
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands
from garnish.pictures.odd_scale import odd_scale

NAMES = ("B01", "blue", "green", "red", "B05")
BANDS = Bands(names=NAMES, range=(0, 10000), nodata=0)
KNOWN = BandStatistics(
    mean=(0.12, 0.1, 0.11, 0.13, 0.3), std=(0.05, 0.06, 0.06, 0.07, 0.1), minimum=(0.01,) * 5, maximum=(0.6,) * 5,
    missing=(0.0,) * 5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _untold(monkeypatch):
    monkeypatch.setattr(module, "_TOLD", set())


def told(stored: np.ndarray, bands: Bands = BANDS, known: BandStatistics | None = KNOWN) -> str:
    return odd_scale(bands.values(stored, "p"), bands, known, "p.tif", stored.dtype)


def reflectances(low: float, high: float) -> np.ndarray:
    """(64, 48, 5) uint16, reflectances times 10,000."""
    drawn = np.random.default_rng(0).uniform(low, high, (64, 48, 5))
    return (drawn * 10000).astype(np.uint16)


def test_floats_of_0_to_1_and_eight_bits_are_not_reflectances_times_ten_thousand():
    right = reflectances(0.03, 0.5)
    assert told(right) == ""
    line = told((right / 10000).astype(np.float32))
    assert "band 'B01' holds" in line and "100 to 6000" in line and "(5 of 5 bands)" in line and len(line) < 400
    module._TOLD.clear()
    assert "uint8" in told((right / 10000 * 255).astype(np.uint8))


def test_large_numbers_are_no_fractions():
    fractions = Bands(names=NAMES, range=(0, 1))
    assert told(reflectances(0.03, 0.5) / 10000.0, fractions) == ""
    assert told(reflectances(0.03, 0.5), fractions).startswith("p.tif: band 'B01' holds 30")
    module._TOLD.clear()
    assert "`range` says 0 to 1" in told(reflectances(0.03, 0.5), fractions, None)


def test_water_snow_and_emptiness_are_pictures():
    for low, high in ((0.002, 0.02), (0.7, 0.95), (0.1, 0.105)):
        assert told(reflectances(low, high)) == ""
    assert told(np.zeros((8, 8, 5), np.uint16)) == ""  # no data
    assert told(np.full((8, 8, 5), 900, np.uint16)) == ""


def test_predict_and_evaluate_say_it_once(caplog):
    model = cases.model("mit", gn.LoRA(rank=2), tasks=["seg"])
    small = (np.random.default_rng(0).random((32, 32, 5)) * 1e-4).astype(np.float32)
    classes = model.tasks["seg"].channels
    data = gn.dataset([(small, np.zeros((32, 32), np.uint8))], {"seg": gn.Semantic(classes=classes)}, bands=cases.FIVE)
    with caplog.at_level(logging.WARNING, "garnish"):
        for _ in range(2):
            model.predict(small)
        assert sum("another scale" in line for line in caplog.messages) == 1
        caplog.clear()
        module._TOLD.clear()
        gn.evaluate(model, data)
    assert sum("another scale" in line for line in caplog.messages) == 1
