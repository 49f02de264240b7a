"""The demo runs offline, writes what it says, and prints figures that were measured in it."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from garnish import demo


@pytest.mark.slow
def test_demo_trains_three_arms_and_writes_pictures_and_bundles(tmp_path, capsys):
    rows = demo.run_demo(tmp_path, steps=3, num_train=16, num_val=4)
    assert list(rows) == list(demo.ARMS)
    assert rows[demo.REFERENCE].delta == 0
    assert rows["heads only"].encoder == 0 < rows["LoRA, rank 8"].encoder < rows[demo.REFERENCE].encoder
    printed = capsys.readouterr().out
    for arm, row in rows.items():
        assert arm in printed
        bundle = tmp_path / "bundles" / demo.ARMS[arm][0].lower()
        assert row.bytes_saved == sum(f.stat().st_size for f in bundle.iterdir())
        stored = json.loads((bundle / "bundle.json").read_text())["metrics"]
        for task, value in row.headline.items():
            assert value in stored[task].values()
    # one column a picture or map: the picture, then target and prediction of each task
    for name, least in {"sheet.png": 9 * 192, "balance.png": 300}.items():
        with Image.open(tmp_path / name) as picture:
            assert picture.width > least


def test_bundled_backbone_is_small_licensed_and_named_in_its_card():
    from importlib.resources import files

    import garnish as gn

    assets = files("garnish") / "assets"
    assert len((assets / "garnish_b0.safetensors").read_bytes()) <= 8 * 2**20
    trunk = gn.backbone("garnish_b0")
    assert trunk.licence == "Apache-2.0"
    assert trunk.weights_source == "bundled"
    assert trunk.fingerprint() in (assets / "garnish_b0.md").read_text(encoding="utf-8")
