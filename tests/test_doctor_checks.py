"""The doctor's checks of single files: what was spoiled is found and nothing else; clean sets have no warnings."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter

from doctor_cases import array, jpeg, make_set, put
from garnish.data.scenes.scenes import Scenes
from garnish.doctor.examine import chosen_checks, examine

SPOILED = (2, 7, 11)


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("clean") / "set", {"train": 14, "val": 4}).parent


@pytest.fixture
def copied(clean, tmp_path) -> Path:
    shutil.copytree(clean, tmp_path / "set")
    return tmp_path / "set"


def compressed(values, number):
    return jpeg(values)


def resized(values, number):
    height, width = values.shape
    small = Image.fromarray(values).resize((round(width * 0.6), round(height * 0.6)), Image.Resampling.NEAREST)
    return np.array(small.resize((width, height), Image.Resampling.BILINEAR))


def speckled(values, number):
    draw = np.random.default_rng(number)
    for y, x in draw.integers(1, 50, (60, 2)):
        values[y, x] = draw.choice([0, 40, 90, 200])
    return values


def emptied(values, number):
    return np.full_like(values, 255)


def constant(values, number):
    return np.full_like(values, 40)


def unlisted(values, number):
    values[3, :4] = 77
    return values


def holed(values, number):
    values[np.random.default_rng(number).random(values.shape) < 0.03] = 65535
    return values


def piled(values, number):
    values[np.random.default_rng(number).random(values.shape) < 0.03] = 9999
    return values


def ten_times(values, number):
    return np.minimum(values.astype(int) * 10, 65535).astype(np.uint16)


def inches(values, number):
    return np.rint(values / 25.4).astype(np.uint16)


def eight_bits(values, number):
    most = values.max()
    return np.rint(np.rint(values / most * 100) / 100 * most).astype(np.uint16)


def shortened(values, number):
    return np.rint(((values / 127.5 - 1) * 0.7 + 1) * 127.5).astype(np.uint8)


def y_up(values, number):
    values[..., 1] = 255 - values[..., 1]
    return values


def away(values, number):
    values[..., 2] = 255 - values[..., 2]
    return values


def blue_first(values, number):
    return np.ascontiguousarray(values[..., ::-1])


def darkened(values, number):
    return (values * 0.08).astype(np.uint8)


def brightened(values, number):
    return (255 - values * 0.08).astype(np.uint8)


def flattened(values, number):
    return np.full_like(values, 90)


def blurred(values, number):
    return np.array(Image.fromarray(values).filter(ImageFilter.GaussianBlur(4)))


CASES = [
    ("lossy_ids", "seg", compressed),
    ("interpolated_ids", "seg", resized),
    ("specks", "seg", speckled),
    ("empty_labels", "seg", emptied),
    ("odd_labels", "seg", constant),
    ("reading", "seg", unlisted),
    ("sentinels", "depth", holed),
    ("sentinels", "depth", piled),
    ("units", "depth", ten_times),
    ("units", "depth", inches),
    ("quantised_depth", "depth", eight_bits),
    ("out_of_range", "depth", holed),
    ("normal_length", "normals", shortened),
    ("normal_axes", "normals", y_up),
    ("normal_axes", "normals", away),
    ("normal_axes", "normals", blue_first),
    ("exposure", "images", darkened),
    ("exposure", "images", brightened),
    ("exposure", "images", flattened),
    ("blurred", "images", blurred),
]


@pytest.mark.parametrize(("check", "kind", "spoil"), CASES, ids=[f"{c}-{s.__name__}" for c, _, s in CASES])
def test_what_was_spoiled_is_found_and_nothing_else(copied, check, kind, spoil):
    names = [f"train-{number:02d}" for number in SPOILED]
    for name in names:
        file = copied / "train" / kind / f"{name}.png"
        put(file, spoil(array(file), int(name[-2:])))
    faults = [f for f in examine(copied, only=[check], jobs=1).faults if f.check == check]
    assert sorted({name for fault in faults for name in fault.names}) == names
    for fault in faults:
        assert fault.message.startswith(fault.files[0])
        assert fault.remedy
        assert "\n" not in fault.message + fault.remedy


def test_a_clean_set_has_no_fault(clean):
    diagnosis = examine(clean, jobs=1)
    # rooms of one plan with other numbers are nearly copies of each other
    assert [fault for fault in diagnosis.faults if fault.check != "duplicates"] == []
    assert set(diagnosis.checks) == set(chosen_checks())


def test_scenes_have_no_error_and_no_warning(tmp_path):
    scenes = Scenes(12, size=(75, 93), seed=3, tasks=("seg", "depth", "normals", "edges"))
    for number in range(12):
        sample = scenes[number]
        put(tmp_path / f"images/{number:02d}.png", sample.image.permute(1, 2, 0).numpy())
        put(tmp_path / f"masks/{number:02d}.png", sample.targets["seg"].numpy().astype(np.uint8))
        put(tmp_path / f"depth/{number:02d}.png", np.rint(sample.targets["depth"][0].numpy() * 1000).astype(np.uint16))
        normals = sample.targets["normals"].permute(1, 2, 0).numpy()
        put(tmp_path / f"normals/{number:02d}.png", np.rint((normals + 1) * 127.5).astype(np.uint8))
        put(tmp_path / f"edges/{number:02d}.png", (sample.targets["edges"][0].numpy() * 255).astype(np.uint8))
    names = list(scenes.tasks["seg"].label_names)
    tasks = {
        "seg": {"task": "Semantic", "labels": "masks/{name}.png", "classes": names},
        "depth": {"task": "Depth", "labels": "depth/{name}.png", "unit": "mm"},
        "normals": {"task": "Normals", "labels": "normals/{name}.png"},
        "edges": {"task": "Edges", "labels": "edges/{name}.png"},
    }
    diagnosis = examine({"images": "images/*.png", "tasks": tasks}, root=tmp_path, jobs=1)
    told = [fault for fault in diagnosis.faults if fault.level != "hint" and fault.check != "absent_classes"]
    assert told == []


def test_thin_things_that_are_there_are_no_interpolation(tmp_path):
    """Lines one pixel wide of an id between those beside them, at one place, and beside others at another."""
    for number in range(3):
        ids = np.zeros((41, 57), np.uint8)
        ids[:, 28:] = 2
        ids[:, 10], ids[:, 45], ids[20] = 1, 3, 1
        put(tmp_path / f"images/{number}.png", np.random.default_rng(number).integers(0, 255, (41, 57, 3), np.uint8))
        put(tmp_path / f"masks/{number}.png", ids)
    found = examine(tmp_path, only=["interpolated_ids", "lossy_ids", "coarse_ids"], jobs=1)
    assert found.faults == ()


@pytest.mark.parametrize("factor", [3, 4, 5.5])
def test_labels_that_were_enlarged(tmp_path, factor):
    """Borders of waves lie in all rows and columns, of an enlarged map in some."""
    down, across = np.mgrid[:87, :121]
    for number in range(4):
        ids = np.digitize(np.sin(down / 9 + number) + np.cos(across / 7 - down / 15), [-1, 0, 1]).astype(np.uint8)
        if number == 2:
            at = [(np.arange(n) // factor * factor).astype(int) for n in ids.shape]
            ids = ids[at[0]][:, at[1]]
        put(tmp_path / f"images/{number}.png", np.random.default_rng(number).integers(0, 255, (87, 121, 3), np.uint8))
        put(tmp_path / f"masks/{number}.png", ids)
    (fault,) = examine(tmp_path, only=["coarse_ids"], jobs=1).faults
    assert fault.names == ("2",)
    assert f"stairs of {int(factor)} pixels" in fault.message


def test_colours_once_saved_as_jpeg_or_resized(tmp_path):
    palette = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]], np.uint8)
    from doctor_cases import room

    for number in range(6):
        made = room(number, (61, 47))
        colours = palette[np.searchsorted([0, 40, 90, 200], made["seg"])]
        if number == 1:
            colours = jpeg(colours)
        if number == 4:
            small = Image.fromarray(colours).resize((30, 40), Image.Resampling.NEAREST)
            colours = np.array(small.resize((47, 61), Image.Resampling.BILINEAR))
        put(tmp_path / f"images/{number}.png", made["images"])
        put(tmp_path / f"seg/{number}.png", colours)
    table = dict(zip("abcd", palette.tolist(), strict=True))
    tasks = {"seg": {"task": "Semantic", "labels": "seg/{name}.png", "classes": list("abcd"), "colours": table}}
    found = examine({"images": "images/*.png", "tasks": tasks}, root=tmp_path, jobs=1)
    by_check = {fault.check: fault.names for fault in found.faults if fault.check in ("lossy_ids", "interpolated_ids")}
    assert by_check == {"lossy_ids": ("1",), "interpolated_ids": ("4",)}
    assert sorted(f.names[0] for f in found.errors) == ["1", "4"]  # colours that are not listed


def test_classes_that_a_split_lacks(copied):
    given = yaml.safe_load((copied / "data.yaml").read_text("utf-8"))
    given["tasks"]["seg"]["classes"].append("cat")
    given["tasks"]["seg"]["map"][250] = 4
    for file in (copied / "train/seg").iterdir():
        values = array(file)
        values[values == 200] = 40
        put(file, values)
    faults = {fault.split: fault for fault in examine(given, root=copied, only=["absent_classes"], jobs=1).faults}
    assert faults[None].level == "warning"
    assert "classes cat" in faults[None].message
    assert faults["train"].level == "warning"
    assert "of lamp, which val has" in faults["train"].message
    assert set(faults) == {None, "train"}


def test_an_empty_split_is_an_error(copied):
    for file in (copied / "val/seg").iterdir():
        put(file, emptied(array(file), 0))
    (fault,) = examine(copied, only=["empty_labels"], jobs=1).faults
    assert (fault.level, fault.split, len(fault.files)) == ("error", "val", 4)


def test_depth_that_is_no_number_asks_for_invalid(tmp_path):
    for number in range(4):
        depth = np.random.default_rng(number).uniform(1, 4, (31, 43)).astype(np.float32)
        if number == 2:
            depth[4, 5:9] = np.nan
        put(tmp_path / f"images/{number}.png", np.zeros((31, 43, 3), np.uint8) + np.arange(43, dtype=np.uint8)[:, None])
        (tmp_path / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / f"depth/{number}.npy", depth)
    entry = {"task": "Depth", "labels": "depth/{name}.npy", "unit": "m", "max_metres": 5.0}
    described = {"images": "images/*.png", "tasks": {"depth": entry}}
    (fault,) = examine(described, only=["sentinels"], jobs=1, root=tmp_path).faults
    assert (fault.level, fault.names, dict(fault.write)) == ("error", ("2",), {"tasks.depth.invalid": ["nan"]})
    assert "4 depths are NAN" in fault.message


def test_other_sizes(copied):
    for kind in ("images", "seg", "depth", "normals"):
        file = copied / "train" / kind / "train-03.png"
        put(file, array(file)[:40, :50])
    (fault,) = examine(copied, only=["odd_sizes"], jobs=1).faults
    assert fault.names == ("train-03",)
    assert "is 50x40, where 17 of 18 are 71x53" in fault.message


def test_transparent_pictures(copied):
    file = copied / "train/images/train-05.png"
    clear = np.dstack([array(file), np.full((53, 71), 255, np.uint8)])
    clear[2, 3, 3] = 0
    put(file, clear)
    (fault,) = examine(copied, only=["transparent"], jobs=1).faults
    assert fault.files == (str(file),)
