"""Tables that name pictures and their labels: CSV and JSON lines, a table for each split, a column of the split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from garnish.cli import main
from garnish.data.folder import folder
from garnish.errors import GarnishError

SEG = {"task": "Semantic", "labels": "{mask}", "classes": 3}
DEPTH = {"task": "Depth", "labels": "{depth}", "unit": "mm"}


def put(path: Path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path):
    for number, place in enumerate(("rgb/one.jpg", "rgb/two.png", "deep/er/three.png")):
        put(tmp_path / place, np.full((2, 3, 3), number, np.uint8))
        put(tmp_path / f"m{number}.png", np.full((2, 3), number, np.uint8))
        put(tmp_path / f"d/{number}.png", np.full((2, 3), 1000 * number + 1000, np.uint16))
    return tmp_path


def given(root: Path, **changes) -> dict:
    tasks = {"seg": SEG, "depth": DEPTH}
    return {"path": str(root), "table": "all.csv", "images": "{image}", "tasks": tasks, **changes}


ROWS = [("rgb/one.jpg", "m0.png", "d/0.png", "a"), ("./rgb/two.png", "m1.png", "", "a")]
ROWS += [("deep/er/three.png", "m2.png", "d/2.png", "b")]


def write(file: Path, head=("image", "mask", "depth", "fold"), rows=ROWS, by=",") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in (".csv", ".tsv"):
        file.write_text("\n".join(by.join(row) for row in (head, *rows)) + "\n")
    else:  # an empty cell is a key that is left out
        objects = ({k: v for k, v in zip(head, row, strict=True) if v} for row in rows)
        file.write_text("\n".join(map(json.dumps, objects)) + "\n")
    return file


def names(data) -> list[str]:
    return [data.picture_name(index) for index in range(len(data))]


def refused(call) -> str:
    with pytest.raises(GarnishError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("file", "by"), [("all.csv", ","), ("all.csv", ";"), ("all.tsv", "\t"), ("t/all.jsonl", "")])
def test_a_table_of_paths(root, file, by):
    write(root / file, by=by)
    data = folder(given(root, table=file))
    assert names(data) == ["deep/er/three", "rgb/one", "rgb/two"]
    assert data.describe() == {"seg": 3, "depth": 2}
    assert [int(data[index].targets["seg"].max()) for index in range(3)] == [2, 0, 1]
    assert [float(data[index].targets["depth"].max()) for index in (0, 1)] == [3, 1]
    assert data.description.known_splits() == ["train"]
    assert "hold_out: 0.2" in refused(lambda: folder(given(root, table=file), "val"))


def test_a_column_of_the_split(root):
    write(root / "all.csv")
    for table in ({"file": "all.csv", "split": "fold"}, "own.csv"):
        write(root / "own.csv", head=("image", "mask", "depth", "split"))
        described = given(root, table=table)
        assert names(folder(described, "a")) == ["rgb/one", "rgb/two"]
        assert folder(described, "b").description.known_splits() == ["a", "b"]
        assert "holds no 'val'" in refused(lambda described=described: folder(described, "val"))
        named = {**described, "splits": {"train": "a", "val": "b"}}
        assert names(folder(named)) == ["rgb/one", "rgb/two"]
        assert names(folder(named, "val")) == ["deep/er/three"]
    assert "has no column 'flod'; did you mean 'fold'" in refused(
        lambda: folder(given(root, table={"file": "all.csv", "split": "flod"}))
    )


def test_the_folder_form_of_hugging_face(root):
    for split in ("train", "validation"):
        for name in "xy":
            put(root / f"{split}/img/{name}.png", np.zeros((2, 3, 3), np.uint8))
            put(root / f"{split}/mask/{name}.png", np.ones((2, 3), np.uint8))
        rows = [(f"img/{name}.png", f"mask/{name}.png") for name in "xy"]
        write(root / split / "metadata.jsonl", head=("file_name", "mask_file_name"), rows=rows)
    described = {
        "path": str(root),
        "table": "{split}/metadata.jsonl",
        "images": {"column": "file_name"},
        "tasks": {"seg": {**SEG, "labels": {"column": "mask_file_name"}}},
    }
    assert "no picture" in refused(lambda: folder(described))  # paths start where the description says
    described["images"] = "{split}/{file_name}"
    described["tasks"]["seg"]["labels"] = "{split}/{mask_file_name}"
    assert names(folder(described)) == ["img/x", "img/y"]
    assert folder(described, "train").description.known_splits() == ["train", "validation"]
    described["splits"] = {"train": "train", "val": "validation"}
    assert folder(described, "val").label_files(1)["seg"] == root / "validation/mask/y.png"


def test_columns_within_names_lists_and_pictures_held_out(root):
    rows = [(f"v{v}_{frame}", str(v)) for v in range(4) for frame in range(3)]
    for name, number in rows:
        put(root / f"pic/{name}.png", np.zeros((2, 3, 3), np.uint8))
        put(root / f"lab/{number}/{name}_id.png", np.ones((2, 3), np.uint8))
    write(root / "all.csv", head=("id", "video"), rows=rows)
    seg = {**SEG, "labels": ["none/{name}.png", "lab/{video}/{id}_id.png"]}
    described = given(root, images="pic/{id}", tasks={"seg": seg})
    data = folder(described)
    assert names(data) == sorted(name for name, _ in rows)
    assert data.label_files(4)["seg"] == root / "lab/1/v1_1_id.png"
    held = {**described, "hold_out": 0.25}
    assert len(folder(held)) == 9
    assert len({name[:2] for name in names(folder(held, "val"))}) == 1
    listed = {**described, "splits": {"train": ["v0_0", "v3_2"], "val": "val.txt"}}
    (root / "val.txt").write_text("v1_1\nv9\n")
    assert names(folder(listed)) == ["v0_0", "v3_2"]
    assert "val.txt, line 2: the table has no picture 'v9'" in refused(lambda: folder(listed, "val"))
    assert "has no column `split`" in refused(lambda: folder({**described, "splits": {"train": "a"}}))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("rgb/one.jpg", "m7.png", "", "")], "all.csv, line 2, column mask: no file"),
        ([("rgb/one.jpg", "m0.png", "", ""), ("rgb/x.jpg", "", "", "")], "line 3, column image: no picture"),
        ([("rgb/one.jpg", "m0.png", "", ""), ("rgb/one.jpg", "m0.png", "", "")], "'rgb/one' stands in"),
        ([("../one.jpg", "m0.png", "", "")], "all.csv, line 2, column image: '../one.jpg' is not a plain relative"),
        ([("rgb/one.jpg", "/etc/passwd", "", "")], "column mask: '/etc/passwd' is not a plain relative path"),
        ([("", "m0.png", "", "")], "all.csv, line 2: a column of `images: {image}` is empty"),
        ([("rgb/one.jpg", "m0.png", "", "", "x")], "line 2: 5 cells for 4 columns"),
        ([], "all.csv: has no rows"),
    ],
)
def test_rows_that_are_refused(root, rows, told):
    write(root / "all.csv", rows=rows)
    assert told in refused(lambda: folder(given(root)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"table": "all.txt"}, "give a file that ends in"),
        ({"table": "../all.csv"}, "without '..'"),
        ({"table": "*.csv"}, "must name one file"),
        ({"table": {"file": "all.csv", "fold": "x"}}, "write e.g. metadata.csv"),
        ({"table": {"file": "{split}.csv", "split": "x"}}, "keep one"),
        ({"table": "none.csv"}, "cannot be read"),
        ({"images": "rgb/*.jpg"}, "with a table write its column in braces"),
        ({"images": "{imag}"}, "has no column 'imag'; did you mean 'image'"),
        ({"tasks": {"seg": {**SEG, "labels": "{msk}"}}}, "has no column 'msk'; did you mean 'mask'"),
        ({"tasks": {"seg": {**SEG, "labels": "m0.png"}}}, "or a column of the table in braces"),
        ({"table": None}, "`images` must be a pattern"),
    ],
)
def test_tables_that_are_refused(root, changes, told):
    write(root / "all.csv")
    assert told in refused(lambda: folder(given(root, **changes)))


def test_tables_of_strangers(root):
    file = root / "all.jsonl"
    described = given(root, table="all.jsonl")
    for text, told in (
        ('{"image": "rgb/one.jpg"}\n["x"]\n', "line 2: cannot be read (it is no object)"),
        ('{"image": ["rgb/one.jpg"]}\n', "line 1, column image: ['rgb/one.jpg'] is no path"),
        ('{"image": "rgb/one.jpg"\n', "line 1: cannot be read"),
        ("[" * 90000, "nested too deeply"),
        ('{"image": "' + "x" * 2**21, "more than 1,048,576 bytes in one line"),
        ('{"image": "rgb\\u0000", "mask": "", "depth": ""}', "is not a plain relative path"),
        ('{"image": "' + "x" * 5000 + '", "mask": "", "depth": ""}', "is not a plain relative path"),
    ):
        file.write_text(text)
        assert told in refused(lambda: folder(described))
    for file in (root / "all.jsonl", root / "all.csv"):
        with file.open("wb") as sparse:
            sparse.truncate(2 * 2**30)
        assert "2,147,483,648 bytes are more than" in refused(lambda file=file: folder(given(root, table=file.name)))
    write(root / "all.csv", head=("image", "mask", "depth", "mask"))
    assert "has two columns 'mask'" in refused(lambda: folder(given(root)))


def test_a_table_at_the_command_line(root, capsys):
    write(root / "all.csv")
    (root / "data.yaml").write_text(json.dumps(given(root, path=".")))
    assert main(["check", "--data", str(root / "data.yaml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["depth"]["maps"] == 2
