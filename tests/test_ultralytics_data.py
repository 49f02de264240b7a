"""Ultralytics' descriptions lead to the files that Ultralytics would read; nothing is run or fetched."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import annotation_samples as samples
import garnish as gn
from garnish.data.description_file import read_description
from garnish.errors import DataError, GarnishError, OptionError

NAMES = list(samples.CLASSES)


def pictures(*files: Path) -> None:
    for number, file in enumerate(files):
        samples.write_picture(file, number, (9, 12))


def rule(picture: Path, folder: str, ending: str) -> Path:
    """Where Ultralytics looks for a label (docs.ultralytics.com/datasets/segment): the last ``images`` is replaced."""
    old, new = f"{os.sep}images{os.sep}", f"{os.sep}{folder}{os.sep}"
    return Path(new.join(str(picture).rsplit(old, 1)).rsplit(".", 1)[0] + ending)


def found(root: Path, given: dict, splits: tuple[str, ...] = ("train", "val")) -> dict[str, list[str]]:
    """Split → its pictures, relative to ``root``; every label lies where the published rule has it."""
    for file in root.rglob("*.*g"):
        label = rule(file, "labels", ".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("", "utf-8")
    made = {}
    for split in splits:
        data = gn.folder(given, split, root=root)
        files = [data.picture_file(index) for index in range(len(data))]
        assert [data.label_files(index)["seg"] for index in range(len(data))] == [
            rule(file, "labels", ".txt") for file in files
        ]
        made[split] = [file.relative_to(root).as_posix() for file in files]
    return made


@pytest.mark.parametrize(
    ("train", "val", "trained", "validated"),
    [
        ("images/train", "images/val", ["images/train/a.jpg", "images/train/d/b.png"], ["images/val/c.jpg"]),
        ("train/images", "valid/images", ["train/images/a.jpg", "train/images/d/b.png"], ["valid/images/c.jpg"]),
        ("../train/images", "../valid/images", ["train/images/a.jpg", "train/images/d/b.png"], ["valid/images/c.jpg"]),
        ("images/train2017/", "images/val2017", ["images/train2017/a.jpg"], ["images/val2017/c.jpg"]),
        ("train", "val", ["train/a.jpg"], ["val/c.jpg"]),
        ("images/all", "images/all", ["images/all/a.jpg"], ["images/all/a.jpg"]),
        ("images", "images", ["images/a.jpg"], ["images/a.jpg"]),
        ("one/images/x", "images/val", None, None),
        (["images/a", "images/b"], "images/c", ["images/a/1.jpg", "images/b/2.jpg"], ["images/c/3.jpg"]),
        ("train.txt", "val.txt", ["images/x/a.jpg", "images/x/b.png"], ["images/y/c.jpg"]),
    ],
)
def test_pictures_and_labels_are_those_of_ultralytics(tmp_path: Path, train, val, trained, validated):
    text = isinstance(train, str) and train.endswith(".txt")
    wanted = [*(trained or ["one/images/x/a.jpg"]), *(validated or ["images/val/c.jpg"])]
    pictures(*(tmp_path / name for name in dict.fromkeys(wanted)))
    if text:
        (tmp_path / "train.txt").write_text("./images/x/a.jpg\n\n./images/x/b.png\n./notes.pdf\n", "utf-8")
        (tmp_path / "val.txt").write_text(f"{tmp_path}/images/y/c.jpg\n", "utf-8")
    given = {"train": train, "val": val, "nc": 3, "names": NAMES}
    if trained is None:  # labels lie in two folders, which no pattern leads to
        with pytest.raises(DataError, match="several folders"):
            found(tmp_path, given)
    else:
        assert found(tmp_path, given) == {"train": trained, "val": validated}


def test_outlines_train_as_they_were_drawn(tmp_path: Path, caplog):
    truth = samples.write_ultralytics(tmp_path / "set", 3, val=2)
    with (tmp_path / "set" / "data.yaml").open("a", encoding="utf-8") as file:
        file.write('download: "touch ran"\nroboflow: {version: 2}\n')
    caplog.set_level("INFO")
    for source in (tmp_path / "set" / "data.yaml", tmp_path / "set"):
        for split, count in (("train", 3), ("val", 2)):
            data = gn.folder(source, split)
            assert len(data) == count
            task = data.tasks["seg"]
            assert task.classes == (*NAMES, "background")  # its number is the last, as Ultralytics has it
            for index in range(count):
                ids = np.asarray(data[index].targets["seg"])
                assert np.array_equal(ids, (truth[data.picture_name(index)].astype(int) - 1) % 4)
    told = [record.getMessage() for record in caplog.records]
    assert sum("download: nothing is fetched or run" in line for line in told) == 1
    assert sum("not read: download, roboflow" in line for line in told) == 1
    assert not Path("ran").exists() and not (tmp_path / "set" / "ran").exists()


def test_one_class_is_background_and_it(tmp_path: Path):
    pictures(tmp_path / "images/train/a.jpg")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("0 0 0 0.5 0 0.5 1 0 1\n", "utf-8")
    data = gn.folder({"train": "images/train", "names": {0: "crack"}}, root=tmp_path)
    assert data.tasks["seg"].classes == ("background", "crack")
    assert np.array_equal(np.asarray(data[0].targets["seg"]), np.arange(12) < np.full((9, 1), 6))


def test_masks_are_mapped_as_ultralytics_maps_them(tmp_path: Path):
    pictures(tmp_path / "images/train/a.jpg")
    (tmp_path / "annotations/train").mkdir(parents=True)
    raw = np.arange(108).reshape(9, 12) % 5 + np.where(np.arange(12) == 11, 251, 0)  # 251 to 255 in a column
    raw[:, 11] = 255
    Image.fromarray(raw.astype(np.uint8)).save(tmp_path / "annotations/train/a.png")
    mapping = {-1: "ignore_label", 0: "ignore_label", 1: 0, 2: "1", 3: None}
    given = {"train": "images/train", "names": ["a", "b", "c", "d", "e"], "masks_dir": "annotations"}
    data = gn.folder({**given, "label_mapping": mapping}, root=tmp_path)
    forward = np.arange(256)  # ids that are not listed stay
    forward[[0, 1, 2, 3]] = 255, 0, 1, 255
    assert np.array_equal(np.asarray(data[0].targets["seg"]), forward[raw])
    # without masks_dir a folder "masks" is taken; one class is background and it
    (tmp_path / "annotations").rename(tmp_path / "masks")
    Image.fromarray((raw % 2).astype(np.uint8)).save(tmp_path / "masks/train/a.png")
    data = gn.folder({"train": "images/train", "nc": 1, "names": ["crack"]}, root=tmp_path)
    assert data.tasks["seg"].classes == ("background", "crack")
    assert np.array_equal(np.asarray(data[0].targets["seg"]), raw % 2)


@pytest.mark.parametrize("ending", [".png", ".npy"])
def test_depth(tmp_path: Path, ending: str):
    pictures(tmp_path / "images/train/a.jpg")
    (tmp_path / "depth/train").mkdir(parents=True)
    metres = np.linspace(0.5, 6.3, 108, dtype=np.float32).reshape(9, 12)
    metres[0, 0] = 0
    wanted = metres.astype(np.float64)
    if ending == ".png":
        Image.fromarray(np.round(metres * 256).astype(np.uint16)).save(tmp_path / "depth/train/a.png")
        wanted = np.round(metres * 256) / 256
    else:
        holes = metres.copy()
        holes[0, 0], holes[0, 1] = np.nan, np.inf
        wanted[0, 1] = 0
        np.save(tmp_path / "depth/train/a.npy", holes)
    scale = {"depth_scale": 256} if ending == ".png" else {}
    data = gn.folder({"train": "images/train", "nc": 1, "names": {0: "depth"}, **scale}, root=tmp_path)
    assert data.tasks["depth"].max_metres == 7
    assert np.allclose(np.asarray(data[0].targets["depth"])[0], wanted, atol=1e-6)


GOOD = {"train": "images/train", "val": "images/val", "names": NAMES}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": "images/trian"}, "train: no folder or list"),
        ({"train": None}, "train: names no folder"),
        ({"train": 3}, "expected a folder"),
        ({"train": ["images/train", None]}, "expected a folder"),
        ({"path": 3}, "path: expected"),
        ({"path": "../elsewhere", "train": "none"}, "train: no folder or list"),
        ({"names": {0: "a", 2: "b"}}, "the numbers 0 to 1"),
        ({"names": "abc"}, "names: expected"),
        ({"names": []}, "names: expected"),
        ({"names": ["a", "a"]}, "a"),
        ({"nc": 4}, "nc is 4"),
        ({"nc": 10**9, "names": None}, "nc: expected"),
        ({"nc": True}, "nc: expected"),
        ({"kpt_shape": [17, 3]}, "key points"),
        ({"channels": 10}, "channels: 10"),
        ({"masks_dir": "../../x"}, "must be relative"),
        ({"masks_dir": 3}, "masks_dir: expected"),
        ({"masks_dir": "masks", "label_mapping": [1]}, "label_mapping: expected"),
        ({"masks_dir": "masks", "label_mapping": {1: "car"}}, "label_mapping.1"),
        ({"depth_scale": 0}, "depth_scale: expected"),
        ({"depth_scale": 1000}, "neither .png nor .npy"),
        ({"train": "empty.txt"}, "holds no pictures"),
        ({"train": "blob.txt"}, "cannot read the list"),
        ({"train": "a\0b"}, "can be no path"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, change: dict, told: str):
    pictures(tmp_path / "images/train/a.jpg", tmp_path / "images/val/b.jpg")
    (tmp_path / "empty.txt").write_text("\n", "utf-8")
    (tmp_path / "blob.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(GarnishError) as caught:
        read_description({**GOOD, **change}, tmp_path).pictures("train")
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_boxes_are_refused_where_they_are_read(tmp_path: Path):
    pictures(tmp_path / "images/train/a.jpg")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n", "utf-8")
    with pytest.raises(DataError, match="line 1: is a box"):
        gn.folder({"train": "images/train", "names": NAMES}, root=tmp_path)[0]


def test_a_split_whose_folder_is_not_there_is_none(tmp_path: Path):
    pictures(tmp_path / "images/train/a.jpg")
    description = read_description({**GOOD, "test": "images/test"}, tmp_path)
    assert list(description.splits) == ["train"]
    with pytest.raises(DataError, match="no split 'val'"):
        description.pictures("val")


def test_other_mappings_are_not_taken_for_it(tmp_path: Path):
    with pytest.raises(OptionError, match="unknown key 'train'"):
        read_description({"train": {"epochs": 3}}, tmp_path)
    with pytest.raises(OptionError, match="unknown key 'names'"):
        read_description({"images": "*.jpg", "names": NAMES, "train": "x"}, tmp_path)
