"""The reader of ``docs/add-a-reader.md``; run by ``test_add_a_task.py`` where it is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from outside_number_lines import NumberLines
from PIL import Image

import garnish as gn
from garnish.cli import main
from garnish.data.check import check
from garnish.data.description_file import read_description
from garnish.errors import DataError, OptionError

VALUES = np.array([[100, 250, 0], [-1, 320, 40]])  # centimetres


@pytest.fixture
def given(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(np.full((2, 3, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("".join(f"{value}\n" for value in VALUES.ravel()))
    entry = {"task": "Depth", "kind": "number_lines", "labels": "{name}.txt", "step": 0.01, "max_metres": 5}
    return {"path": str(tmp_path), "images": "*.png", "tasks": {"depth": entry}}


def test_read(given):
    target = gn.folder(given)[0].targets["depth"]
    assert type(target).__name__ == "DepthMap"
    np.testing.assert_allclose(target[0].numpy(), [[1, 2.5, 0], [0, 3.2, 0.4]], rtol=1e-6)
    assert not check(gn.folder(given)).errors


def test_from_the_command_line(given, tmp_path, capsys):
    (tmp_path / "data.yaml").write_text(json.dumps(given))
    assert main(["check", "--data", str(tmp_path / "data.yaml"), "--json"]) == 0
    capsys.readouterr()
    assert main(["methods"]) == 0
    assert "number_lines" in capsys.readouterr().out


def test_what_is_wrong_is_one_line(given, tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match=r"a\.txt: 2 numbers for 3x2 pixels"):
        gn.folder(given)[0]
    (tmp_path / "b.png").write_bytes(b"no picture")
    errors = check(gn.folder(given)).errors
    assert len(errors) == 3 and any("without its picture 'b'" in line for line in errors)
    for change, says in (
        ({"step": 0}, "data: tasks.depth.step: expected metres above 0, got 0"),
        (
            {"unit": "cm"},
            "data: tasks.depth.unit: does not apply to labels of kind number_lines; those take: step, orientation",
        ),
        ({"kind": "number_line"}, "data: tasks.depth.kind: unknown kind 'number_line'; did you mean 'number_lines'"),
    ):
        with pytest.raises(OptionError) as caught:
            read_description({**given, "tasks": {"depth": {**given["tasks"]["depth"], **change}}}, tmp_path)
        assert str(caught.value).startswith(says) and "\n" not in str(caught.value)


def test_what_is_usual_stays_so(given, tmp_path):
    """Without ``kind`` depth is read as before, though two readers make it now."""
    entry = {**given["tasks"]["depth"], "unit": "cm"}
    del entry["kind"], entry["step"]
    reader = read_description({**given, "tasks": {"depth": entry}}, tmp_path).tasks["depth"].labels
    assert type(reader).__module__ == "garnish.data.labels.depth" and not isinstance(reader, NumberLines)


def test_pictures_are_told_apart_by_how_they_are_read(given):
    before = gn.folder(given)
    given["tasks"]["depth"]["step"] = 0.02
    after = gn.folder(given)
    assert before.key(0) != after.key(0)
    assert before.content(0)["ways of reading labels"] != after.content(0)["ways of reading labels"]
