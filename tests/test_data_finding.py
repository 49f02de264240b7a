"""Files are found as by ``Path.glob``, in folders of any depth and by patterns with any number of wildcards."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from garnish.data.finding import files_that_fit
from garnish.data.folder import folder
from garnish.errors import DataError


def test_what_is_found_is_what_glob_finds(tmp_path):
    draw = random.Random(0)
    names = ["a", "b", "ab", ".a", "a.png", "A.PNG", "[a]", "ä"]
    for _ in range(150):
        file = tmp_path.joinpath(*draw.choices(names[:4], k=draw.randint(0, 3)), "f" + draw.choice(names[4:]))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    parts = ["**", "*", "a", "a*", "*b", "?", "[ab]", "link", "b", "loop", "none"]
    for _ in range(400):
        way = draw.choices(parts, k=draw.randint(0, 4))
        pattern = "/".join([*way, draw.choice(["*", "*.png", "fa.png", "f*", "f?.png", "f[[]a]"])])
        found = [path for path in files_that_fit(tmp_path, pattern) if path.is_file()]
        assert len(found) == len(set(found)), pattern
        assert set(found) == {path for path in tmp_path.glob(pattern) if path.is_file()}, pattern


def data(root: Path, images: str) -> dict[str, object]:
    for kind in ("rgb", "seg"):
        file = root / kind / "p.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(file)
    tasks = {"s": {"task": "Saliency", "labels": "seg/{name}.png"}}
    return {"path": str(root), "images": images, "tasks": tasks}


@pytest.mark.parametrize("images", ["rgb/**/*.png", "rgb/{name}.png", "rgb/**/**/**/**/**/{name}/{name}.png"])
@pytest.mark.parametrize("depth", [20, 30, 700])
def test_deep_folders_end_in_an_answer(tmp_path, depth, images):
    (tmp_path / "rgb").joinpath(*["a"] * depth).mkdir(parents=True)
    if depth <= 30:
        Image.new("RGB", (8, 8)).save((tmp_path / "rgb").joinpath(*["a"] * depth, "q.png"))
    begun = time.process_time()
    if depth > 32:
        with pytest.raises(DataError, match="more than 32 folders deep"):
            folder(data(tmp_path, images))
    elif images.count("{name}") > 1:
        with pytest.raises(DataError, match="is empty"):
            folder(data(tmp_path, images))
    else:
        assert len(folder(data(tmp_path, images))) == 1  # the other has no label
    assert time.process_time() - begun < 5
