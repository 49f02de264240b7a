"""A folder of pictures of other bands becomes a description to be corrected, and is told where names look exchanged."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import garnish as gn
from garnish.cli import main
from garnish.data.picture_reading import left_unread
from garnish.errors import GarnishError
from garnish.files.strict_yaml import read_yaml

NAMES = tuple(f"B{k:02}" for k in range(1, 14))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "s2"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for k in range(6):
        np.savez(
            root / f"images/f{k}.npz", **{name: rng.integers(100, 4000, (48, 48)).astype(np.uint16) for name in NAMES}
        )
        mask = np.repeat(np.repeat(rng.permutation(np.arange(9) % 5).reshape(3, 3), 16, 0), 16, 1).astype(np.uint8)
        Image.fromarray(mask).save(root / f"masks/f{k}.png")
    return root


def test_the_draft_has_the_ids_and_the_names_of_the_bands(folder, tmp_path, capsys):
    file = tmp_path / "data.yaml"
    assert main(["check", str(folder), "--write", str(file)]) in (0, 1)
    found = read_yaml(file)
    assert found["tasks"]["seg"]["classes"] == 5
    assert found["channels"] == {"names": list(NAMES), "range": [0, 10000]}
    assert "B02 blue, B03 green, B04 red" in file.read_text()
    assert len(gn.folder(file)[0].image) == 13
    capsys.readouterr()
    assert main(["check", str(file), "--backbone", "garnish_b0", "--limit", "2"]) in (0, 1)
    assert "B13" in capsys.readouterr().out
    assert main(["check", str(file), "--backbone", "garnish_b0", "--page", "a.html"]) == 2


def test_without_write_it_is_said_how_to_keep_the_draft(folder):
    with pytest.raises(GarnishError, match=r"--write data\.yaml` keeps this to be corrected"):
        gn.folder(folder)


def test_colours_of_sentinel_under_names_of_others_are_told(tmp_path):
    levels = np.random.default_rng(0).integers(1, 4000, (8, 8)).astype(np.uint16)
    file = tmp_path / "a.npz"
    np.savez(file, B02=levels, B03=levels, B04=levels)
    told = left_unread([file], gn.Bands(range=(0, 4000)))
    assert "calls a band B02, in Sentinel-2 blue, that `channels` call red" in told
    assert left_unread([file], gn.Bands(names=("blue", "green", "red"), range=(0, 4000))) == ""
