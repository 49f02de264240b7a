"""The format of ``docs/add-a-format.md``; run by ``test_add_a_task.py`` where it is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from outside_outline_table import HEADER
from PIL import Image

import garnish as gn
from garnish.cli import main
from garnish.data.annotation_files import formats, read_annotations
from garnish.errors import DataError

LINES = ["set/a.jpg,car,1 1 5 1 5 4 1 4", "set/a.jpg,dog,2 2 4 2 4 3 2 3", "b.jpg,car,0 0 2 0 2 2"]


@pytest.fixture
def given(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(np.full((5, 7, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "all.csv").write_text("\n".join([HEADER, *LINES]) + "\n")
    entry = {"task": "Semantic", "labels": "all.csv", "classes": ["background", "car", "dog"]}
    return {"path": str(tmp_path), "images": "*.png", "tasks": {"seg": entry}}


def test_read(given):
    expected = np.zeros((5, 7), int)
    expected[1:4, 1:5] = 1
    expected[2:3, 2:4] = 2
    found = gn.folder(given)
    assert (np.asarray(found[0].targets["seg"]) == expected).all() and len(found) == 2


def test_it_is_a_format_as_others_are(given, tmp_path, capsys):
    assert "outline_table" in formats()
    assert read_annotations(tmp_path / "all.csv").format.tool == "table of outlines"
    (tmp_path / "data.yaml").write_text(json.dumps(given))
    assert main(["check", "--data", str(tmp_path / "data.yaml"), "--json"]) == 0
    capsys.readouterr()


def test_a_damaged_line_is_named(given, tmp_path):
    for line in ("a.jpg,car", "a.jpg,car,1 2 3", "a.jpg,car,1 x 3 4"):
        (tmp_path / "all.csv").write_text(f"{HEADER}\n{line}\n")
        with pytest.raises(DataError, match=r"all\.csv, line 2: expected picture,class,points"):
            gn.folder(given)
    (tmp_path / "all.csv").write_text(f"{HEADER}\na.jpg,car,nan 1 2 3 4 5\n")
    with pytest.raises(DataError, match="a coordinate is not finite"):
        gn.folder(given)[0]
    (tmp_path / "all.csv").write_text(f"{HEADER}\na.jpg,cat,0 1 2 3 4 5\n")
    with pytest.raises(DataError, match="objects of class 'cat', which is none of the task's"):
        gn.folder(given)
