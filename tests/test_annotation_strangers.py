"""Annotation files of strangers: whatever is in them, reading ends in labels or in one line that names the file."""

from __future__ import annotations

import copy
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation_sets import INNER, SIZE, SQUARE, coco_text, opened, target
from garnish.data.annotations import coco as coco_format
from garnish.data.annotations.coco_json import LISTS
from garnish.data.labels import shape_file
from garnish.errors import DataError, GarnishError
from garnish.files.json_entries import json_entries

ODD: list[Any] = [
    None, True, False, -1, 0, 2**31, 2**63, 10**30, 0.5, 1e308, "", "x", "../a.jpg", "\x1b[31m", [], [[]], [None],
    {}, {"a": 1}, [[1, 2], [3, 4]], [["1", "2", "3", "4", "5", "6"]], {"size": [11, 17], "counts": "0"},
    {"size": [11, 17], "counts": []}, {"size": [-1, 5], "counts": [5]}, {"size": [2**40, 2**40], "counts": "PPYo1"},
    {"size": [11, 17], "counts": [2**62, 2**62]}, {"size": [11, 17], "counts": [-5, 192]},
    {"size": [11, 17], "counts": [187, 1]}, {"size": [11, 17], "counts": "é"}, {"size": [True, 17], "counts": "0"},
    {"size": [11, 17], "counts": [1.5]}, {"size": [11], "counts": [11]}, {"counts": [11]}, [[1, 2, 3]],
    [[1, 2, 3, 4, 5, [6]]], [[1, 2, 3, 4, 5, None]], [[1, 2, 3, 4, 5, True]], [[10**400, 0, 1, 1, 2, 2]],
    [[1e300, 0, 1, 1, 2, 2]], [[2**53, 0, 1, 1, 2, 2]],
]  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at for key, value in entries for at in ((*path, key), *places(value, (*path, key)))]


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(tree)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return made


def read(root: Path) -> np.ndarray | str:
    """The target, or the message."""
    try:
        return target(opened(root))
    except GarnishError as error:
        return str(error)


def test_every_value_may_be_anything(tmp_path):
    sound = coco_text()
    sound["annotations"][1]["segmentation"] = {"size": list(SIZE), "counts": [0, 187]}
    opened(tmp_path, content=sound)
    refused = 0
    for number, path in enumerate(places(sound)):
        for value in ODD[number % 3 :: 3]:
            (tmp_path / "coco.json").write_text(json.dumps(put(sound, path, value)))
            found = read(tmp_path)
            if isinstance(found, str):
                refused += 1
                assert "\n" not in found and "\x1b" not in found and len(found) < 700, (path, value)
                assert "coco.json" in found and not found.endswith(": "), (path, value, found)
            else:
                assert found.shape == SIZE and set(np.unique(found)) <= {0, 1, 2, 255}, (path, value)
    assert refused > 250


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "of no known format"),
        ("[1, 2]", "of no known format"),
        ('{"images": [], "annotations": [], "categories": []} x', "something follows its end"),
        ('{"images": [], "annotations": [], "categories": [', "is damaged"),
        ('{"images": [1,], "annotations": [], "categories": []}', "entry 1: expected a mapping, got 1"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"},]}', "without an entry behind"),
        ('{"images": [], "images": [], "annotations": [], "categories": []}', "key 'images' stands twice"),
        ('{"images": [{"id": 1, "id": 2}], "annotations": [], "categories": []}', "key 'id' stands twice"),
        ('{"images": [], "annotations": [NaN], "categories": []}', "NaN is not JSON"),
        ('{"images": {}, "annotations": [], "categories": []}', "expected a list under 'images'"),
        ('{"images": [], "annotations": [], "categories": []', "expected a comma"),
        ('{"images" [], "annotations": [], "categories": []}', "expected a colon"),
        ('{"images": [], "annotations": ' + "[" * 100_000 + ', "categories": []}', "nested too deeply"),
        ('{"images": [], "annotations": [], "categories": [], "info": ' + '{"a":' * 100_000, "nested too deeply"),
        ('{"images": [], "annotations": [], "categories": [], "info": ' + "9" * 9999 + "}", "is damaged"),
    ],
)  # fmt: skip
def test_damaged_text_is_refused(tmp_path, text, reason):
    opened(tmp_path, content=coco_text())
    (tmp_path / "coco.json").write_text(text)
    found = read(tmp_path)
    assert isinstance(found, str) and reason in found and "coco.json" in found


def test_ids_and_names_that_stand_for_two_are_refused(tmp_path):
    image, category = coco_text()["images"][0], coco_text()["categories"][0]
    for changed, reason in (
        ({"images": [image, {**image, "file_name": "b.jpg"}]}, "id 12 is also that of 'a.jpg'"),
        ({"images": [image, {**image, "id": 13}]}, "images 12 and 13 are both 'a.jpg'"),
        ({"categories": [category, {**category, "name": "x"}]}, "id 7 is also that of 'car'"),
        ({"images": [{**image, "height": -4}]}, "17x-4 is no size"),
        ({"images": [{**image, "height": 10**6}]}, "17x1000000 is no size"),
    ):
        (tmp_path / "coco.json").unlink(missing_ok=True)
        with pytest.raises(DataError) as error:
            opened(tmp_path, content=coco_text(**changed))
        assert reason in str(error.value)


def test_text_ids_and_other_orders_of_keys_are_read(tmp_path):
    sound = coco_text()
    sound["images"][0]["id"] = "seven"
    for each in sound["annotations"]:
        each["image_id"] = "seven"
    before = target(opened(tmp_path, content=coco_text()))
    turned = dict(reversed(sound.items()))
    (tmp_path / "coco.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(turned, indent=3).encode())
    assert (target(opened(tmp_path)) == before).all()


def test_objects_may_cover_a_picture_some_times_only(tmp_path, monkeypatch):
    monkeypatch.setattr(shape_file, "_MOST_FILLED", 10)
    many = coco_text()
    full = {"image_id": 12, "category_id": 7, "segmentation": {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}}
    for count in (64, 65):
        many["annotations"] = [full] * count
        found = opened(tmp_path, {"overlap": "later"}, many)
        if count == 64:
            assert (target(found) == 1).all()
            continue
        with pytest.raises(DataError, match="the 65 objects of 'images/a' cover 17x11 pixels more than 64 times"):
            found[0]


def test_objects_are_bounded_by_their_number_and_masks_before_all_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(shape_file, "_MOST_OBJECTS", 100)
    entry = {"image_id": 12, "category_id": 7, "segmentation": [SQUARE]}
    assert (target(opened(tmp_path, content=coco_text(annotations=[entry] * 100))) == 1).any()
    with pytest.raises(DataError, match="'images/a' has more than 100 objects, too many for 17x11 pixels"):
        opened(tmp_path, content=coco_text(annotations=[entry] * 101))[0]

    made = []
    runs = coco_format.mask_of_runs
    monkeypatch.setattr(coco_format, "mask_of_runs", lambda *given: made.append(1) or runs(*given))
    monkeypatch.setattr(shape_file, "_MOST_FILLED", 10)
    full = {**entry, "segmentation": {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}}
    with pytest.raises(DataError, match="cover 17x11 pixels more than 64 times"):
        opened(tmp_path, content=coco_text(annotations=[full] * 90))[0]
    assert len(made) == 65


def test_entries_are_given_one_by_one(tmp_path):
    """A list of many objects takes the memory of its text and of one of them."""
    file = tmp_path / "large.json"
    one = json.dumps({"segmentation": [SQUARE * 30], "image_id": 1, "category_id": 3})
    file.write_text('{"annotations": [' + ", ".join([one] * 1_500) + '], "info": {"year": 2017}}')
    size = file.stat().st_size
    tracemalloc.start()
    count = sum(1 for key, _ in json_entries(file, LISTS, "mend it") if key == "annotations")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1_500 and most < 2.2 * size + 2**17 and size > 2**20
    assert INNER and [key for key, _ in json_entries(file, LISTS, "")][-1] == "info"
