"""The page's script makes the folders that its description reads; its other Python is Python."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

import garnish as gn

PAGE = (Path(__file__).parents[1] / "docs" / "from-folder-to-server.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_drawn_folder_is_read_as_the_description_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script, asking = blocks("python")
    compile(asking, "ask.py", "exec")
    (shorter, times) = re.subn(r'", 80, seed', '", 6, seed', script)
    assert times == 2
    exec(compile(shorter, "make_pictures.py", "exec"), {})
    (description,) = blocks("yaml")
    Path("rooms.yaml").write_text(description, encoding="utf-8")
    read = gn.folder("rooms.yaml", split="all")
    scenes = gn.Scenes(6, size=(128, 192), seed=1)
    assert read.tasks["seg"].classes == scenes.tasks["seg"].classes and len(read) == 6
    for index in range(6):
        found, drawn = read[index], scenes[index]
        np.testing.assert_array_equal(found.image, drawn.image)
        np.testing.assert_array_equal(found.targets["seg"], drawn.targets["seg"])
        near = drawn.targets["depth"] <= 7.0  # what is farther than max_metres has no label
        assert abs(found.targets["depth"] - drawn.targets["depth"])[near].max() <= 0.000501
    with Image.open("room.png") as picture:
        assert picture.size == (336, 224)
    assert {path.parent.name for path in Path("lines").glob("*/*.png")} == {"images", "edges"}


def test_no_path_of_a_machine_stands_in_it():
    assert "garnish-uploads" in PAGE and not re.search(r"(?<![\w…/.])/(tmp|home|root|work|var)/", PAGE)
