"""What a description or a folder says and cannot act as written: refused, or told, with a remedy that works."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from garnish.cli import main
from garnish.data.folder import folder
from garnish.data.labels.choosing import reader_of
from garnish.data.labels.reader import decode
from garnish.data.sources import open_data
from garnish.errors import DataError, GarnishError, OptionError
from garnish.files.given_pictures import picture_files
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.tasks.normals import Normals
from garnish.tasks.saliency import Saliency
from garnish.tasks.semantic import Semantic


def put(path: Path, values=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((6, 8, 3), np.uint8) if values is None else values
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def ids(value: int = 0) -> np.ndarray:
    values = np.zeros((6, 8), np.uint8)
    values[0] = value
    return values


def description(root: Path, **changes) -> dict:
    task = {"task": "Semantic", "labels": "masks/{name}.png", "classes": 3}
    return {"path": str(root), "images": "images/*", "tasks": {"seg": task}, **changes}


@pytest.fixture
def root(tmp_path):
    for name in "abc":
        put(tmp_path / f"images/{name}.png")
        put(tmp_path / f"masks/{name}.png", ids(1))
    return tmp_path


def refused(call) -> str:
    with pytest.raises(GarnishError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    return text


# splits


@pytest.mark.parametrize("splits", [{"train": "train", "val": "val"}, {"train": "a.lst"}, {"val": 2019}])
def test_a_split_that_names_no_pictures_is_refused(root, splits):
    text = refused(lambda: folder(description(root, splits=splits), next(iter(splits))))
    assert "so it would hold every picture; put {split} into `images`, or list the names in" in text


def test_both_remedies_of_a_split_without_pictures(root):
    (root / "val.txt").write_text("b\n")
    data = folder(description(root, splits={"val": "val.txt", "all": "all"}), "val")
    assert [data.picture_name(i) for i in range(len(data))] == ["b"]
    put(root / "images/val/d.png")
    put(root / "masks/d.png", ids(1))
    data = folder(description(root, images="images/{split}/*", splits={"val": "val"}), "val")
    assert [data.picture_name(i) for i in range(len(data))] == ["d"]


@pytest.mark.parametrize("value", [{"a": 1}, True, None, 1.5])
def test_a_split_is_a_folder_or_a_list(root, value):
    assert "write the name of a folder" in refused(lambda: folder(description(root, splits={"train": value})))


def test_lists_may_end_in_capitals_and_name_no_picture_twice(root):
    (root / "TRAIN.TXT").write_text("b\nb.png\n")
    given = description(root, splits={"train": "TRAIN.TXT"})
    assert "b.png is listed twice; remove one of the lines" in refused(lambda: folder(given))
    (root / "TRAIN.TXT").write_text("b\n")
    assert len(folder(given)) == 1


def test_tasks_of_a_list_of_sets_are_known(root):
    assert "unknown task 'sge'; did you mean 'seg'" in refused(lambda: open_data([description(root)], tasks=["sge"]))
    assert list(open_data([description(root)] * 2, tasks=["seg"]).tasks) == ["seg"]


# pictures


def test_two_endings_of_one_picture(root):
    put(root / "images/a.jpg")
    text = refused(lambda: folder(description(root)))
    assert "share the name 'a'; write the ending into `images`, or move one of them away" in text
    assert len(folder(description(root, images="images/*.png"))) == 3
    (root / "train.txt").write_text("a\n")
    given = description(root, splits={"train": "train.txt"})
    assert "train.txt, line 1: " in (text := refused(lambda: folder(given)))
    assert "share the name 'a'; write the ending" in text
    assert folder({**given, "images": "images/*.png"}).picture_file(0).suffix == ".png"


@pytest.mark.parametrize("images", ["pictures/*/*.png", "pictures/**/*.png", "pictures/*/{name}.png"])
def test_two_folders_of_one_name(root, images):
    for place in "xy":
        put(root / f"pictures/{place}/a.png")
        put(root / f"masks/{place}/a.png", ids(1))
    text = refused(lambda: folder(description(root, images=images)))
    told = re.search(r"write `images: (.*?)`", text)
    assert told is not None
    data = folder(description(root, images=told[1]))
    assert [data.picture_name(i) for i in range(len(data))] == ["x/a", "y/a"]


def test_a_name_that_stands_twice_in_a_pattern(root):
    put(root / "pictures/a/a.png")
    put(root / "pictures/b/c.png")
    data = folder(description(root, images="pictures/{name}/{name}.png"))
    assert [data.picture_name(i) for i in range(len(data))] == ["a"]


def test_listed_pictures_in_capitals_are_found(root):
    (root / "images/a.png").rename(root / "images/a.PNG")
    (root / "train.txt").write_text("a\n")
    assert folder(description(root, splits={"train": "train.txt"})).picture_file(0).name == "a.PNG"


def test_files_that_are_no_pictures_are_told(root, caplog):
    caplog.set_level(logging.INFO, "garnish")
    (root / "images/x.heic").write_bytes(b"x")
    (root / "images/.hidden.png").write_bytes(b"x")
    assert len(folder(description(root))) == 3
    assert "fit images/* but end in .heic are no pictures and were left out" in caplog.text
    caplog.clear()
    assert [f.name for f in picture_files([str(root / "images")]).values()] == ["a.png", "b.png", "c.png"]
    assert "files that end in .heic are no pictures and were left out" in caplog.text


@pytest.mark.parametrize("ending", PICTURE_SUFFIXES)
def test_data_sets_and_predict_read_the_same_files(root, ending):
    for old in (root / "images").iterdir():
        old.unlink()
    put(root / f"images/a{ending.upper()}")
    assert len(folder(description(root))) == 1
    assert list(picture_files([str(root / "images")])) == ["a"]
    (root / "train.txt").write_text(f"a{ending.upper()}\n")
    assert len(folder(description(root, splits={"train": "train.txt"}))) == 1


# label options that contradict each other


@pytest.mark.parametrize(
    ("task", "options", "remedy"),
    [
        (Semantic(classes=3), {"ignore": [7, 8], "map": {7: 1}}, {"ignore": [8], "map": {7: 1}}),
        (Saliency(), {"ignore": 7, "positive": [7, 9]}, {"ignore": 8, "positive": [7, 9]}),
        (
            Semantic(classes=("a", "b")),
            {"colours": {"a": [0, 0, 0], "b": [1, 1, 1]}, "others": "same"},
            {"colours": {"a": [0, 0, 0], "b": [1, 1, 1]}, "others": 255},
        ),
    ],
)
def test_options_that_cannot_both_act(task, options, remedy):
    with pytest.raises(OptionError, match=r"take it out of one|write an id, or 255"):
        reader_of({"labels": "{name}.png", **options}, task, "set")
    reader_of({"labels": "{name}.png", **remedy}, task, "set")


def test_a_threshold_of_one_bit_maps(tmp_path):
    """Tools that shrink files store black and white in one bit; of grey levels that is 0 and 255."""
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    options = reader_of({"labels": "{name}.png", "threshold": 127}, Saliency(), "set")
    from garnish.files.label_files import read_array

    assert decode(read_array(tmp_path / "a.png"), options, tmp_path / "a.png", Saliency()).tolist() == [[[0, 1]]]


def test_normals_of_sixteen_bits():
    options = reader_of({"labels": "{name}.png"}, Normals(), "set")
    raw = np.array([[[65535, 32768, 32768], [0, 0, 0]]], np.uint16)
    assert np.allclose(decode(raw, options, Path("a.png"), Normals())[:, 0], [[1, 0], [0, 0], [0, 0]], atol=1e-4)


def test_palettes_by_their_colours(tmp_path):
    image = Image.fromarray(ids(1))
    image.putpalette([0, 0, 0, 128, 0, 0])
    put(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks/a.png")
    task = {"task": "Semantic", "labels": "masks/{name}.png", "classes": ["b", "a"]}
    for others in ({}, {"others": 255}):
        given = task | {"colours": {"a": [128, 0, 0], "b": [0, 0, 0]}} | others
        assert (folder(description(tmp_path, tasks={"seg": given}))[0].targets["seg"].numpy() == ids(1)).all()


# folders without a description


def ready(text: str) -> dict:
    return yaml.safe_load(text.split("give that file: ")[1])


def test_labels_of_two_endings_are_not_chosen_from(root):
    put(root / "masks/c.npy", ids(1))
    (root / "masks/c.png").unlink()
    text = refused(lambda: folder(root))
    assert "masks holds files that end in .npy and .png; `labels` names one ending" in text
    given = ready(text)
    given["tasks"]["seg"] = {"task": "Semantic", "labels": ["masks/{name}.png", "masks/{name}.npy"], "classes": 2}
    (root / "data.yaml").write_text(json.dumps(given))
    assert folder(root).describe() == {"seg": 3}


def test_lossy_masks_are_not_counted(root):
    Image.fromarray(ids(1)).save(root / "masks/a.png", format="JPEG")
    assert "changed by JPEG compression" in refused(lambda: folder(root))


def test_two_folders_of_one_kind_are_told(root, caplog):
    put(root / "labels/a.png", ids(2))
    put(root / "rgb/a.png")
    assert folder(root).tasks["seg"] == Semantic(classes=2)
    assert "folders labels are left out; masks are the labels of seg" in caplog.text
    assert "pictures are those of images/*; rgb/* left out" in caplog.text


def test_two_folders_of_one_split_are_refused(tmp_path):
    for split in ("train", "val", "validation"):
        put(tmp_path / f"images/{split}/a.png")
        put(tmp_path / f"masks/{split}/a.png", ids(1))
    text = refused(lambda: folder(tmp_path))
    assert "folders val and validation may both be the split 'val'; rename or join them" in text
    (tmp_path / "images/validation").rename(tmp_path / "images/other")
    assert len(folder(tmp_path, "val")) == 1


def test_wrong_splits_at_the_command_line(root, capsys):
    given = description(root, splits={"train": "train", "val": "val"}, path=".")
    (root / "data.yaml").write_text(json.dumps(given))
    assert main(["check", "--data", str(root / "data.yaml")]) == 2
    assert "splits.train: 'train' is no list (.txt, .csv" in capsys.readouterr().err


def test_the_listed_file_is_the_one_that_errors_name(root):
    with pytest.raises(DataError, match="no picture"):
        (root / "train.txt").write_text("nothing\n")
        folder(description(root, splits={"train": "train.txt"}))
