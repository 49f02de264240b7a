"""The check of ``docs/check.md``; run by ``test_add_a_task.py`` where it is installed."""

from __future__ import annotations

import numpy as np
from PIL import Image

from garnish.doctor.examine import examine


def examined(tmp_path, grey):
    draw = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for k in range(5):
        pixels = draw.integers(0, 256, (24, 32, 3), np.uint8)
        if k in grey:
            pixels[:] = pixels[..., :1]
        Image.fromarray(pixels).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray((pixels[..., 0] > 99).astype(np.uint8)).save(tmp_path / "masks" / f"{k}.png")
    given = {"images": "images/*.png", "tasks": {"s": {"task": "Semantic", "classes": 2, "labels": "masks/{name}.png"}}}
    return examine(given, root=tmp_path, jobs=1, only=["grey_pictures"])


def test_what_is_grey_is_found(tmp_path):
    (fault,) = examined(tmp_path, {1, 3}).faults
    assert (fault.check, fault.level, fault.names) == ("grey_pictures", "hint", ("1", "3"))
    assert fault.message.startswith(str(tmp_path / "images" / "1.png")) and "2 of 5" in fault.message


def test_a_grey_set_is_meant(tmp_path):
    assert not examined(tmp_path, {0, 1, 2, 4}).faults
