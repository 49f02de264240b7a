"""Which pictures belong to a split: lists in files of four kinds, lists in the description, and pictures held out."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from garnish.cli import main
from garnish.data.folder import folder
from garnish.data.held_out import HoldOut, groups_of, held_out
from garnish.errors import DataError, GarnishError, OptionError

NAMES = ("a", "b", "street/c", "street/d.e")


def put(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def pair(root: Path, name: str, suffix: str = ".png", images: str = "images", masks: str = "masks") -> None:
    put(root / images / f"{name}{suffix}", np.zeros((2, 3, 3), np.uint8))
    put(root / masks / f"{name}.png", np.array([[0, 1, 2], [0, 1, 255]], np.uint8))


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        pair(tmp_path, name)
    return tmp_path


def given(root: Path, **changes) -> dict:
    task = {"task": "Semantic", "labels": "masks/{name}.png", "classes": 3}
    return {"path": str(root), "images": "images/{name}.png", "tasks": {"seg": task}, **changes}


def names(data) -> list[str]:
    return [data.picture_name(index) for index in range(len(data))]


def refused(call) -> str:
    with pytest.raises(GarnishError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# lists


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("val.txt", "a\n\nstreet/d.e\n"),
        ("val.txt", "\ufeffa.png\r\n./street/d.e.png\r\n"),
        ("val.txt", "images/a.png\nimages/street/d.e.png\n"),
        ("val.csv", "a\nstreet/d.e\n"),
        ("val.csv", "weather,Image\nsun,a.png\nrain,images/street/d.e.png\n"),
        ("val.csv", "weather;file_name\nsun, fog;a\nrain;street/d.e\n"),
        ("val.tsv", "weather\tpath\nsun\timages/a.png\nrain\timages/street/d.e.png\n"),
        ("val.csv", 'note,name\n"two\nlines, one cell",a\n,street/d.e\n'),
        ("val.csv", "split,name\nval,a\ntrain,b\nval,street/d.e\n"),
        ("val.json", '["a", "street/d.e"]'),
        ("val.json", '[{"file_name": "a.png", "height": 2}, {"file_name": "street/d.e.png"}]'),
        ("val.json", '{"train": ["b"], "val": ["a", "street/d.e"]}'),
        ("val.yaml", "[a, street/d.e]\n"),
        ("val.yml", "val: [a, street/d.e]\n"),
    ],
)
def test_lists_of_every_kind(root, file, text):
    (root / file).write_bytes(text.encode())
    assert names(folder(given(root, splits={"val": file}), "val")) == ["a", "street/d.e"]


def test_lists_in_the_description(root):
    pair(root, "0001")
    described = given(root, splits={"train": ["b", "images/street/c.png", "0001"], "val": ["a.png"]})
    assert names(folder(described)) == ["0001", "b", "street/c"]
    assert names(folder(described, "val")) == ["a"]
    assert "no split 'test'; available: train, val" in refused(lambda: folder(described, "test"))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("splits.json", '{"train": ["b", "street/c"], "holdout": ["a"]}'),
        ("splits.yaml", "train: [b, street/c]\nholdout: [a]\n"),
        ("splits.csv", "name,split\nb,train\na,holdout\nstreet/c,train\n"),
    ],
)
def test_one_file_of_all_splits(root, file, text):
    (root / file).write_text(text)
    described = given(root, splits=file)
    assert names(folder(described)) == ["b", "street/c"]
    assert names(folder(described, "holdout")) == ["a"]
    assert "no split 'val'; available: holdout, train" in refused(lambda: folder(described, "val"))


def test_labels_of_listed_pictures_may_lie_in_folders_of_the_split(root):
    pair(root, "x", images="rgb", masks="labels/val")
    task = {"task": "Semantic", "labels": "labels/{split}/{name}.png", "classes": 3}
    described = {"path": str(root), "images": "rgb/*", "splits": {"val": ["x"]}, "tasks": {"seg": task}}
    assert folder(described, "val").label_files(0)["seg"] == root / "labels/val/x.png"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("val.txt", "a\n../a\n", "val.txt, line 2: '../a' is not a plain relative name"),
        ("val.csv", "name\na\n/etc/passwd\n", "val.csv, line 3: '/etc/passwd' is not a plain relative name"),
        ("val.json", '["a", "..\\\\a"]', "val.json, entry 2: '..\\\\a' is not a plain"),
        ("val.csv", "picture\na\n", "val.csv, line 1: no picture"),
        ("val.csv", "name,x\na,1\nq,2\n", "val.csv, line 3: no picture"),
        ("val.csv", "x,name\na\n", "val.csv, line 2: column 2 names no picture"),
        ("val.csv", 'name\n"a\n', "unexpected end of data"),
        ("val.csv", "name,split\na,\n", "val.csv, line 2: column 'split' is empty"),
        ("val.json", '{"train": ["a"]}', "val.json: holds no split 'val', but 'train'"),
        ("val.json", '["a", {"x": 1}]', "val.json, entry 2: {'x': 1} names no picture"),
        ("val.json", "[1, 2", "val.json: cannot be read"),
        ("val.json", "[" * 9000, "nested too deeply"),
        ("val.json", '"a"', "is no list of names"),
        ("val.yaml", "a: {b: 1}", "val.yaml: a: {'b': 1} is no list of names"),
        ("val.txt", "a\na.png\n", "is listed twice"),
        ("val.txt", "", "split 'val' is empty"),
    ],
)
def test_lists_that_are_refused(root, file, text, told):
    (root / file).write_text(text)
    assert told in refused(lambda: folder(given(root, splits={"val": file}), "val"))


def test_lists_that_are_no_text_or_too_large(root):
    described = given(root, splits={"val": "val.csv"})
    (root / "val.csv").write_bytes(b"name\n\xff\n")
    assert "save it as CSV in UTF-8" in refused(lambda: folder(described, "val"))
    (root / "val.csv").write_bytes(b"name\na" + b" " * 2**21)
    assert "more than 1,048,576 characters" in refused(lambda: folder(described, "val"))
    with (root / "val.csv").open("wb") as sparse:
        sparse.truncate(2 * 2**30)
    assert "2,147,483,648 bytes are more than" in refused(lambda: folder(described, "val"))
    with (root / "val.json").open("wb") as sparse:
        sparse.truncate(40 * 2**20)
    assert "are more than" in refused(lambda: folder(given(root, splits={"val": "val.json"}), "val"))


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ("train", "splits: 'train'; write {train: …, val: …}, or a .json"),
        ("all.txt", "splits: 'all.txt'; write"),
        ("../s.json", "without '..'"),
        ("list.json", "says of no name to which split it belongs"),
        ({"val": ["a", True]}, "splits.val, entry 2: True names no picture"),
    ],
)
def test_splits_that_are_refused(root, splits, told):
    (root / "list.json").write_text('["a"]')
    assert told in refused(lambda: folder(given(root, splits=splits), "val"))


# pictures held out


def test_groups_of_names():
    frames = ["0001TP_006690", "0001TP_006720", "Seq05VD_f00000", "Seq05VD_f00030", "x/Seq05VD_f00030", "cat", "a.b1c"]
    assert groups_of(frames) == ["0001TP_", "0001TP_", "Seq05VD_f", "Seq05VD_f", "x/Seq05VD_f", "cat", "a.b"]
    cities = ["aachen/aachen_000000_000019_leftImg8bit", "aachen/aachen_000001_000019_leftImg8bit"]
    assert groups_of(cities) == ["aachen/aachen_", "aachen/aachen_"]
    more = [*cities, "bonn/bonn_000000_000028_leftImg8bit"]
    assert groups_of(more) == ["aachen/aachen_000000_", "aachen/aachen_000001_", "bonn/bonn_000000_"]
    assert groups_of(["a/frame_01/rgb", "a/frame_02/rgb", "b/frame_01/rgb"]) == ["a/frame_", "a/frame_", "b/frame_"]
    assert groups_of(["seq1_0005", "seq2_0005"]) == ["seq1_", "seq2_"]
    assert groups_of(["7"]) == [""]


def test_what_is_held_out_hangs_on_names_alone():
    videos = [f"v{v}_{frame:04}" for v in range(20) for frame in range(1 + 3 * v)]
    chosen = held_out(videos, HoldOut(share=0.2), "set")
    for _ in range(3):
        random.shuffle(videos)
        assert held_out(videos, HoldOut(share=0.2), "set") == chosen
    assert abs(len(chosen.names) - 0.2 * len(videos)) <= 0.05 * len(videos)
    for video in {name.split("_")[0] for name in videos}:
        held = {name in chosen.names for name in videos if name.split("_")[0] == video}
        assert len(held) == 1
    # other pictures move few: of pictures that stand by themselves, one more moves at most one to the other side
    single = [f"{n:03}" for n in range(200)]
    one = held_out(single, HoldOut(share=0.2, by="picture"), "set").names
    more = held_out([*single, "new"], HoldOut(share=0.2, by="picture"), "set").names
    assert len(one) == 40
    assert len(one ^ (more - {"new"})) <= 1


@pytest.mark.parametrize(("sizes", "share"), [((1000, 3), 0.2), ((3, 1000), 0.5), ((5, 5), 0.01), ((1,) * 3, 0.5)])
def test_something_is_held_out_and_something_left(sizes, share):
    videos = [f"{'abc'[v]}_{frame}" for v, size in enumerate(sizes) for frame in range(size)]
    chosen = held_out(videos, HoldOut(share=share), "set")
    assert 0 < len(chosen.names) < len(videos)
    assert 0 < len(chosen.groups) < chosen.all_groups == len(sizes)


@pytest.fixture
def videos(tmp_path):
    for video, frames in (("a", 6), ("b", 2), ("c", 2), ("d", 1)):
        for frame in range(frames):
            pair(tmp_path, f"{video}_{frame:03}")
    put(tmp_path / "images/e_1.png", np.zeros((2, 3, 3), np.uint8))  # no label
    return tmp_path


def test_a_held_out_split(videos, caplog):
    caplog.set_level(logging.WARNING, "garnish.data")
    described = given(videos, hold_out=0.2)
    train, val = folder(described), folder(described, "val")
    assert not set(names(train)) & set(names(val))
    assert len(train) + len(val) == 11  # the one without a label is in neither
    assert {name[0] for name in names(train)}.isdisjoint(name[0] for name in names(val))
    assert "of 12 training pictures are the split val" in caplog.text
    assert "asked for 20.0%" in caplog.text
    assert val.describe() == {"seg": len(val)}
    assert all(val[index].targets["seg"].shape == (2, 3) for index in range(len(val)))
    every = folder({**described, "every": {"train": 2}})
    assert names(every) == [n for n in names(train) if n in set(names(every))]
    assert train.description.known_splits() == ["train", "val"]
    assert folder(given(videos)).description.known_splits() == ["train"]


def test_held_out_of_folders_and_lists(videos):
    task = {"task": "Semantic", "labels": "{split}/masks/{name}.png", "classes": 3}
    for name in ("a_1", "a_2", "b_1"):
        pair(videos, name, images="train/images", masks="train/masks")
    described = {"path": str(videos), "images": "{split}/images/*", "hold_out": 0.3, "tasks": {"seg": task}}
    val = folder(described, "val")
    assert names(val) == ["b_1"]
    assert val.label_files(0)["seg"] == videos / "train/masks/b_1.png"
    listed = given(videos, splits={"train": ["a_000", "a_001", "c_000"], "test": ["d_000"]}, hold_out=0.3)
    assert names(folder(listed, "val")) == ["c_000"]
    assert names(folder(listed, "test")) == ["d_000"]
    assert folder(listed).description.known_splits() == ["train", "test", "val"]


def test_hold_out_that_is_refused(videos):
    both = given(videos, splits={"train": ["a_000"], "val": ["b_000"]}, hold_out=0.2)
    assert "`splits` names a split 'val' already" in refused(lambda: folder(both))
    for name in ("a_1", "b_1"):
        pair(videos, name, images="train/images", masks="train/masks")
    pair(videos, "x", images="val/images")
    task = {"task": "Semantic", "labels": "{split}/masks/{name}.png", "classes": 3}
    described = {"path": str(videos), "images": "{split}/images/*", "hold_out": 0.4, "tasks": {"seg": task}}
    for split in ("train", "val"):
        assert "has a split 'val' of its own" in refused(lambda split=split: folder(described, split))
    one = given(videos, splits={"train": [f"a_{n:03}" for n in range(6)]}, hold_out=0.2)
    text = refused(lambda: folder(one))
    assert "differ only in their last number (a_000 … a_005)" in text
    assert len(folder({**one, "hold_out": {"share": 0.2, "by": "picture"}}, "val")) == 1
    for value, told in (
        (0, "hold_out.share"),
        (0.6, "hold_out.share"),
        ("x", "a share such as 0.2"),
        (True, "a share"),
    ):
        assert told in refused(lambda value=value: folder(given(videos, hold_out=value)))
    with pytest.raises(OptionError, match=r"hold_out\.by"):
        folder(given(videos, hold_out={"share": 0.2, "by": "pictures"}))
    with pytest.raises(DataError, match=r"or hold out training pictures by `hold_out: 0\.2`"):
        folder(given(videos), "val")


def test_held_out_from_the_command_line(videos, capsys):
    for name in "fghij":
        pair(videos, name)
    (videos / "images/e_1.png").unlink()
    for data in (videos, videos / "data.yaml"):  # a folder without a description, then with one
        assert main(["check", "--data", str(data), "--data.hold_out", "0.2", "--split", "val", "--json"]) == 0
        told = capsys.readouterr()
        assert json.loads(told.out)["pictures"] == 3
        assert "hold_out: 3 of 16 training pictures are the split val (18.8%, asked for 20.0%)" in told.err
        (videos / "data.yaml").write_text(yaml.safe_dump(given(videos, path=".")))
