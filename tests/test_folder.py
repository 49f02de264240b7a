"""Folders of pictures and labels, made on the spot; the four real sets where they are at hand."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision import tv_tensors

import garnish as gn
from garnish.data.dataset import DepthMap, NormalMap, collate
from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.errors import DataError, OptionError
from garnish.tasks.depth import Depth
from garnish.tasks.semantic import Semantic

RECIPES = Path(__file__).parents[1] / "recipes" / "data"
SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def put(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(np.asarray(values)).save(path)
    return path


def picture(path: Path, seed: int = 0, size=(6, 8)) -> Path:
    return put(path, np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8))


DESCRIPTION = {
    "images": "rgb/{split}/*.png",
    "tasks": {
        "seg": {"task": "Semantic", "labels": "seg/{split}/{name}.png", "classes": ["a", "b", "c"], "weight": 2},
        "depth": {"task": "Depth", "labels": "depth/{split}/{name}.png", "unit": "mm", "max_metres": 5},
        "normals": {"task": "Normals", "labels": "normals/{split}/{name}.npy"},
        "border": {"task": "Edges", "labels": "seg/{split}/{name}.png", "from": "boundaries"},
    },
}


@pytest.fixture
def root(tmp_path):
    """Three training pictures (c without any label, b without depth and normals) and one of validation."""
    for split, names in (("train", "abc"), ("val", "d")):
        for name in names:
            picture(tmp_path / f"rgb/{split}/{name}.png", ord(name))
            if name != "c":
                put(tmp_path / f"seg/{split}/{name}.png", np.arange(48, dtype=np.uint8).reshape(6, 8) % 3)
            if name in "ad":
                put(tmp_path / f"depth/{split}/{name}.png", np.full((6, 8), 2500, np.uint16))
                put(tmp_path / f"normals/{split}/{name}.npy", np.full((6, 8, 3), (0, 0, -1), np.float32))
    return tmp_path


def write_yaml(root: Path, **changes) -> Path:
    file = root / "set.yaml"
    file.write_text(yaml.safe_dump({**DESCRIPTION, **changes}))
    return file


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_samples(root, caplog):
    caplog.set_level(logging.INFO, "garnish.data")
    data = folder(write_yaml(root))
    assert len(data) == 2
    assert data.describe() == {"seg": 2, "depth": 1, "normals": 1, "border": 2}
    assert data.tasks["seg"] == Semantic(classes=("a", "b", "c"), weight=2.0)
    assert data.tasks["depth"] == Depth(max_metres=5.0)
    assert "1 picture without any label left out" in caplog.text
    assert "1 of 2 pictures have labels for depth" in caplog.text
    first = data[0]
    assert isinstance(first.image, tv_tensors.Image)
    assert first.image.dtype == torch.uint8
    assert first.size == (6, 8)
    assert first.name.endswith("rgb/train/a.png")
    assert first.targets["seg"].dtype == torch.int64
    assert (first.targets["seg"] == torch.arange(48).reshape(6, 8) % 3).all()
    assert isinstance(first.targets["depth"], DepthMap)
    assert (first.targets["depth"] == 2.5).all()
    assert isinstance(first.targets["normals"], NormalMap)
    assert first.targets["normals"][:, 0, 0].tolist() == [0, 0, -1]
    assert isinstance(first.targets["border"], tv_tensors.Mask)
    assert first.targets["border"].shape == (1, 6, 8)
    assert set(data[1].targets) == {"seg", "border"}
    assert collate([data[0], data[1]]).where == {"seg": [0, 1], "depth": [0], "normals": [0], "border": [0, 1]}
    assert len(pickle.loads(pickle.dumps(data))) == 2  # worker processes get a copy this way


def test_splits_and_chosen_tasks(root):
    data = folder(write_yaml(root), "val", tasks=["depth"])
    assert list(data.tasks) == list(data[0].targets) == ["depth"]
    with pytest.raises(OptionError, match="unknown task 'depht'; did you mean 'depth'"):
        folder(write_yaml(root), tasks=["depht"])


def test_mapping_yaml_and_public_name_agree(root, monkeypatch):
    inline = folder({**DESCRIPTION, "path": root.name}, root=root.parent)
    monkeypatch.setenv("SETS", str(root.parent))
    expanded = folder({**DESCRIPTION, "path": f"$SETS/{root.name}"})
    named = gn.folder(write_yaml(root))
    for data in (inline, expanded, named):
        assert torch.equal(data[0].image, named[0].image)
    put(root / "data.yaml.png", np.zeros((2, 2), np.uint8))
    write_yaml(root).rename(root / "data.yaml")
    assert folder(root).describe() == named.describe()


def test_every_nth(root):
    for number in range(10):
        picture(root / f"rgb/test/{number}.png", number)
        put(root / f"seg/test/{number}.png", np.zeros((6, 8), np.uint8))
    data = folder(write_yaml(root, every={"test": 4}), "test", tasks=["seg"])
    assert [data.picture_name(i) for i in range(len(data))] == ["0", "4", "8"]


def test_listed_splits(tmp_path):
    for name in ("x", "y", "sub/z"):
        picture(tmp_path / f"images/{name}.jpg")
        put(tmp_path / f"depth/{name}.npy", np.ones((6, 8), np.float32))
    given = {
        "path": str(tmp_path),
        "images": "images/*",
        "splits": {"train": "sets/train.txt"},
        "tasks": {"depth": {"task": "Depth", "labels": "depth/{name}.npy"}},
    }
    (tmp_path / "sets").mkdir()
    names = tmp_path / "sets/train.txt"
    names.write_text("y.jpg\n\nsub/z\n")
    data = folder(given)
    assert [data.picture_name(i) for i in range(2)] == ["sub/z", "y"]
    assert data.describe() == {"depth": 2}
    for bad in ("../x", "/etc/passwd", "sub/../../x", "C:\\x"):
        names.write_text(f"y\n{bad}\n")
        with pytest.raises(DataError, match=r"train\.txt, line 2: .* is not a plain relative name"):
            folder(given)
    names.write_text("q\n")
    with pytest.raises(DataError, match=r"train\.txt, line 1: no picture .*q\.jpg"):
        folder(given)
    with pytest.raises(DataError, match="no split 'val'; available: train"):
        folder(given, "val")
    names.unlink()
    with pytest.raises(DataError, match="cannot read"):
        folder(given)


def test_names_inside_patterns(tmp_path):
    for city in ("aachen", "bonn"):
        picture(tmp_path / f"leftImg8bit/val/{city}/{city}_0_leftImg8bit.png")
        put(tmp_path / f"gtFine/val/{city}/{city}_0_gtFine_labelIds.png", np.full((6, 8), 7, np.uint8))
    task = {"task": "Semantic", "classes": 19, "map": {7: 0, 8: 1}, "others": 255}
    given = {
        "path": str(tmp_path),
        "images": "leftImg8bit/{split}/{name}_leftImg8bit.png",
        "tasks": {"seg": {**task, "labels": "gtFine/{split}/{name}_gtFine_labelIds.png"}},
    }
    data = folder(given, "val")
    assert data.picture_name(1) == "bonn/bonn_0"
    assert not data[1].targets["seg"].any()


# errors


SEG = {"task": "Semantic", "labels": "{name}.png", "classes": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "x"}, "unknown key 'image'; did you mean 'images'"),
        ({"images": "rgb"}, "must be a pattern"),
        ({"images": "../{split}/*.png"}, "without '..'"),
        ({"images": "{splt}/*.png"}, "has {splt}"),
        ({"tasks": {}}, "`tasks` is empty"),
        ({"tasks": {"seg": {"labels": "{name}.png"}}}, "tasks.seg: expected"),
        ({"tasks": {"seg": {"task": "Semantics"}}}, "unknown task 'Semantics'; did you mean 'Semantic'"),
        ({"tasks": {"seg": {"task": "Semantic", "labels": "{name}.png"}}}, "option 'classes' is required"),
        ({"tasks": {"d": {"task": "Depth", "labels": "/{name}.png"}}}, "must be relative"),
        ({"tasks": {"d": {"task": "Depth", "label": "{name}"}}}, "unknown option 'label'; did you mean 'labels'"),
        ({"every": {"train": 0}}, "above 0"),
        ({"splits": ["train"]}, "`splits` must be a mapping"),
        ({"tasks": {"seg": SEG, "hold_out": 0.2}}, "tasks.hold_out: is no task but a key of the description; write"),
        ({"tasks": {"seg": SEG, "splits": {"train": "a"}}}, "write `splits:` at the top level, beside `tasks`"),
        ({"tasks": {"seg": {**SEG, "every": {"val": 2}}}}, "seg.every: is for all tasks together; write `every:`"),
        ({"labels": "{name}.png"}, "labels stands beside `tasks` and is an option of one task; write `tasks: {NAME: "),
    ],
)
def test_refused_descriptions(root, changes, message):
    with pytest.raises(OptionError) as error:
        folder(write_yaml(root, **changes))
    assert message in one_line(error)


def test_unknown_option_lists_both_groups(root):
    tasks = {"d": {"task": "Depth", "labels": "{name}.png", "metres": 3}}
    with pytest.raises(OptionError) as error:
        folder(write_yaml(root, tasks=tasks))
    text = one_line(error)
    assert "options of Depth: weight, max_metres, min_metres; options of labels: labels, kind, ignore" in text


def test_unreadable_yaml(tmp_path):
    with pytest.raises(DataError, match=r"none\.yaml: cannot be read"):
        folder(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("images: [a\ntasks: }")
    with pytest.raises(DataError, match=r"bad\.yaml, line 2: not valid YAML") as error:
        folder(tmp_path / "bad.yaml")
    one_line(error)
    (tmp_path / "bad.yaml").write_bytes(b"images: \xff")
    with pytest.raises(DataError, match=r"bad\.yaml: cannot be read"):
        folder(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("just text")
    with pytest.raises(OptionError, match="expected keys path, images"):
        folder(tmp_path / "bad.yaml")


def test_a_description_is_read_as_a_recipe_is(root):
    """YAML 1.1 takes the class `no` for False and 1e-3 for text, and the second of two equal keys for both."""
    head = f"path: {root}\nimages: rgb/{{split}}/*.png\ntasks:\n"
    seg = "  seg: {task: Semantic, labels: 'seg/{split}/{name}.png', classes: [yes, no, off], weight: 1e-3}\n"
    file = root / "strict.yaml"
    file.write_text(head + seg)
    assert folder(file).tasks["seg"] == Semantic(classes=("yes", "no", "off"), weight=1e-3)
    for twice in (seg + seg, seg.replace("off]", "off], map: {7: 0, 8: 1, 7: 2}"), seg.replace("weight", "task")):
        file.write_text(head + twice)
        with pytest.raises(DataError, match=r"strict\.yaml, line \d: not valid YAML \(key '(seg|7|task)' occurs twice"):
            folder(file)
    file.write_text(head + "  ? [a, b]\n  : {task: Semantic}\n")
    with pytest.raises(DataError, match=r"strict\.yaml, line 4: not valid YAML"):
        folder(file)


def test_empty_split_and_missing_folder(root):
    with pytest.raises(
        DataError, match=r"split 'test' is empty: no picture fits .*rgb/test/\*\.png.*another split"
    ) as error:
        folder(write_yaml(root), "test")
    one_line(error)
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        folder(write_yaml(root, path="nowhere"))


def test_a_task_without_any_label_is_named(root):
    tasks = {**DESCRIPTION["tasks"], "edges": {"task": "Edges", "labels": "edge/{split}/{name}.png"}}
    with pytest.raises(DataError, match=r"tasks\.edges: no picture .* gave e\.g\. .*edge/train/a\.png") as error:
        folder(write_yaml(root, tasks=tasks))
    one_line(error)


def test_bad_labels_name_the_file(root):
    label = root / "seg/train/a.png"
    put(label, np.full((6, 8), 3, np.uint8))
    with pytest.raises(DataError, match=r"seg/train/a\.png: label ids 3"):
        folder(write_yaml(root))[0]
    put(label, np.zeros((6, 7), np.uint8))
    with pytest.raises(DataError, match=r"seg/train/a\.png: 7x6, but its picture .*a\.png is 8x6; resize"):
        folder(write_yaml(root))[0]
    put(label, np.zeros((8, 6), np.uint8))
    with pytest.raises(DataError, match="one of them is turned"):
        folder(write_yaml(root))[0]
    label.write_bytes(b"PNG")
    with pytest.raises(DataError, match=r"seg/train/a\.png: damaged"):
        folder(write_yaml(root))[0]


def test_two_pictures_of_one_name(root):
    picture(root / "rgb/train/x/a.png")
    with pytest.raises(DataError, match="share the name 'a'"):
        folder(write_yaml(root, images="rgb/{split}/**/*.png"))


# joins


def test_joined_sets(root, tmp_path):
    one = folder(write_yaml(root), "train", tasks=["seg"])
    two = folder(write_yaml(root), "val", tasks=["seg", "depth"])
    both = join(one, join(two))
    assert len(both) == 3
    assert both.describe() == {"seg": 3, "depth": 1}
    assert list(both.tasks) == ["seg", "depth"]
    assert [set(both[i].targets) for i in range(3)] == [{"seg"}, {"seg"}, {"seg", "depth"}]
    assert both[-1].name == both[2].name
    with pytest.raises(IndexError):
        both[3]


def test_joins_refuse_unequal_tasks(root):
    one = folder(write_yaml(root), tasks=["depth"])
    farther = {"depth": {**DESCRIPTION["tasks"]["depth"], "max_metres": 8}}
    with pytest.raises(OptionError, match=r"task 'depth': has max_metres = 8\.0, but 5\.0"):
        join(one, folder(write_yaml(root, tasks=farther)))
    other = {"depth": {"task": "Normals", "labels": "normals/{split}/{name}.npy"}}
    with pytest.raises(OptionError, match="are for Normals in set 2, but for Depth in a set before"):
        join(one, folder(write_yaml(root, tasks=other)))


# plain folders


@pytest.mark.parametrize("layout", ["{split}/{kind}/{name}", "{kind}/{split}/{name}"])
def test_plain_folders(tmp_path, layout, caplog):
    caplog.set_level(logging.INFO, "garnish.data")
    for split in ("train", "validation"):
        for number in range(3):
            place = {"split": split, "name": number}
            picture(tmp_path / (layout.format(kind="images", **place) + ".jpg"), number)
            ids = np.full((6, 8), number if split == "train" else 0, np.uint8)
            put(tmp_path / (layout.format(kind="masks", **place) + ".png"), ids)
            depth = np.full((6, 8), 1000 + 2000 * number, np.uint16)
            put(tmp_path / (layout.format(kind="depth", **place) + ".png"), depth)
            put(tmp_path / (layout.format(kind="edges", **place) + ".png"), np.full((6, 8), 90, np.uint8))
    data = gn.folder(tmp_path)
    assert data.describe() == {"seg": 3, "depth": 3, "edges": 3}
    assert data.tasks["seg"] == Semantic(classes=3)
    assert data.tasks["depth"] == Depth(max_metres=5.0)
    assert data[2].targets["depth"].max() == 5
    assert "3 classes read from 3 training masks" in caplog.text
    assert len(gn.folder(str(tmp_path), "val")) == 3
    assert gn.folder(tmp_path, "val").tasks == data.tasks
    with pytest.raises(DataError, match="no split 'test'"):
        gn.folder(tmp_path, "test")


def test_plain_folder_without_splits(tmp_path):
    for name, values in (("a", [[0, 255]]), ("b", [[0, 0]])):
        put(tmp_path / f"images/{name}.jpg", np.zeros((1, 2, 3), np.uint8))
        put(tmp_path / f"masks/{name}.png", np.array(values, np.uint8))
    data = gn.folder(tmp_path)
    assert data.tasks["seg"] == Semantic(classes=("background", "foreground"))
    assert data[0].targets["seg"].tolist() == [[0, 1]]
    with pytest.raises(DataError, match="would hold the training pictures"):
        gn.folder(tmp_path, "val")


def ready_yaml(error) -> dict:
    return yaml.safe_load(one_line(error).split("give that file: ")[1])


def test_plain_folders_that_need_a_description(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        gn.folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="no folder images") as error:
        gn.folder(tmp_path)
    assert ready_yaml(error)["tasks"]["seg"]["task"] == "Semantic"
    picture(tmp_path / "images/a.jpg")
    with pytest.raises(DataError, match="no labels beside") as error:
        gn.folder(tmp_path)
    assert ready_yaml(error)["images"] == "images/*"
    put(tmp_path / "masks/a.png", np.full((6, 8), 200, np.uint8))
    with pytest.raises(DataError, match="list them under `map`") as error:
        gn.folder(tmp_path)
    ready = ready_yaml(error)
    assert ready["tasks"]["seg"]["map"]
    ready["tasks"]["seg"]["map"] = {200: 1}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(ready))
    assert (gn.folder(tmp_path)[0].targets["seg"] == 1).all()


# the real sets


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pictures of ../shared/data")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("camvid", {"train": 367, "val": 101, "test": 233}),
        ("replica", {"train": 54, "val": 9, "test": 18}),
        ("crackforest", {"train": 72, "val": 10, "test": 36}),
        ("ccp", {"train": 140, "val": 20, "test": 60}),
    ],
)
def test_real_sets_load_and_count(name, counts):
    for split, count in counts.items():
        data = folder(RECIPES / f"{name}.yaml", split)
        assert len(data) == count
        assert data.describe() == dict.fromkeys(data.tasks, count)
        for task, target in data[count // 2].targets.items():
            data.tasks[task].check_target(target, task)


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pictures of ../shared/data")
def test_boundaries_of_replica_instances_are_its_edges():
    tasks = {"edges": {"task": "Edges", "labels": "instance/{split}/{name}.png", "from": "boundaries"}}
    given = {"path": str(SHARED / "replica_office0"), "images": "rgb/{split}/*.jpg", "tasks": tasks}
    ours, theirs = folder(given, "val"), folder(RECIPES / "replica.yaml", "val", tasks=["edges"])
    for index in range(len(ours)):
        one, other = ours[index].targets["edges"] == 1, theirs[index].targets["edges"] == 1
        overlap = (one & other).sum() / (one | other).sum()
        assert overlap > 0.7, float(overlap)
