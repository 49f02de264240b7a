"""Labels from COCO's files: classes, masks and outlines, which picture is which, and what a description may say."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

import annotation_samples
import garnish as gn
from annotation_sets import INNER, SIZE, SQUARE, coco_text, opened, target, write_pictures
from garnish.data.annotation_files import read_annotations
from garnish.data.annotations.filling import fill_polygons
from garnish.data.class_points import ClassPoints
from garnish.data.folder import folder
from garnish.data.joined import join
from garnish.errors import DataError, GarnishError, OptionError


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    made = np.zeros(SIZE, bool)
    made[top:bottom, left:right] = True
    return made


CAR, DOG = box(2, 1, 9, 7), box(4, 3, 7, 6)


def test_smaller_objects_lie_on_top_and_the_rest_is_background(tmp_path):
    expected = np.where(DOG, 2, np.where(CAR, 1, 0))
    assert (target(opened(tmp_path, content=coco_text())) == expected).all()
    later = opened(tmp_path, {"overlap": "later"})
    assert (target(later) == np.where(CAR, 1, 0)).all(), "the car stands behind the dog in the file"


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_and_crowds(tmp_path, compressed):
    truth = np.random.default_rng(0).random(SIZE) < 0.4
    runs = coco.encode(np.asfortranarray(truth.astype(np.uint8)))
    counts: object = runs["counts"].decode()
    if not compressed:
        flat = truth.T.reshape(-1)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
        counts = np.diff(edges, prepend=0, append=flat.size).tolist()
    crowd = {"image_id": 12, "category_id": 7, "iscrowd": 1, "segmentation": {"size": list(SIZE), "counts": counts}}
    dog = coco_text()["annotations"][0]
    content = coco_text(annotations=[dog, crowd])
    assert (target(opened(tmp_path, content=content)) == np.where(DOG, 2, np.where(truth, 255, 0))).all()
    kept = opened(tmp_path, {"crowd": "class", "overlap": "later"})
    assert (target(kept) == np.where(truth, 1, np.where(DOG, 2, 0))).all()
    assert (target(opened(tmp_path, {"task": "Saliency", "classes": None}))[0] == np.where(DOG, 1, truth * 255)).all()


def test_pixels_without_an_object_are_what_the_description_says(tmp_path, caplog):
    names = {"classes": ["car", "dog", "road"]}
    found = target(opened(tmp_path, {**names, "unlabelled": "road"}, coco_text()))
    assert set(found[~CAR]) == {2}
    with caplog.at_level(logging.WARNING):
        found = target(opened(tmp_path, names))
    assert set(found[~CAR]) == {255} and "write `unlabelled: CLASS`" in caplog.text
    assert set(target(opened(tmp_path, {"unlabelled": "ignore"}))[~CAR]) == {255}


def test_names_are_mapped_left_out_or_refused(tmp_path):
    content = coco_text()
    assert set(
        target(
            opened(tmp_path, {"classes": ["background", "thing"], "map": {"car": "thing", "dog": "ignore"}}, content)
        )[DOG]
    ) == {255}
    assert set(target(opened(tmp_path, {"classes": ["background", "car"], "others": "ignore"}))[DOG]) == {255}
    with pytest.raises(DataError, match=r"objects of class 'dog', which is none of the task's; .*`others: ignore`"):
        opened(tmp_path, {"classes": ["background", "car"]})
    with pytest.raises(DataError, match="only a number of classes"):
        opened(tmp_path, {"classes": 3})
    with pytest.raises(OptionError, match=r"tasks.t.map: 'car': unknown class 'cat'"):
        opened(tmp_path, {"map": {"car": "cat"}})
    unused = coco_text(categories=[*content["categories"], {"id": 0, "name": "dataset-name"}])
    assert target(opened(tmp_path, content=unused)).max() == 2, "a category that no object has needs no class"


def test_a_mask_holds_objects_and_edges_hold_their_outlines(tmp_path):
    saliency = {"task": "Saliency", "classes": None}
    assert (target(opened(tmp_path, saliency, coco_text()))[0] == CAR).all()
    assert (target(opened(tmp_path, {**saliency, "positive": ["dog"]}))[0] == DOG).all()
    with pytest.raises(DataError, match="positive: no class 'cat'"):
        opened(tmp_path, {**saliency, "positive": ["cat"]})
    with pytest.raises(OptionError, match="write `from: boundaries`"):
        opened(tmp_path, {"task": "Edges", "classes": None})
    two = coco_text()
    two["annotations"][1]["category_id"] = 3  # of one class: their outlines stay
    found = target(opened(tmp_path, {"task": "Edges", "classes": None, "from": "boundaries"}, two))[0]
    numbers = np.where(DOG, 2, CAR.astype(int))
    padded = np.pad(numbers, 1, mode="edge")
    near = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    assert (found == np.any([one != numbers for one in near], 0)).all()


def test_pictures_are_found_by_the_end_of_their_path(tmp_path):
    write_pictures(tmp_path, ["x/a", "y/a", "b"])
    images = [{"id": k, "file_name": name} for k, name in enumerate(["set\\x\\a.jpg", "y/a.jpeg", "far/b.tiff"])]
    pairs = [(0, 3), (1, 7), (2, 3)]
    annotations = [{"image_id": k, "category_id": c, "segmentation": [INNER]} for k, c in pairs]
    found = opened(tmp_path, content=coco_text(images=images, annotations=annotations))
    assert {found.picture_name(k): target(found, k)[4, 5] for k in range(3)} == {"x/a": 2, "y/a": 1, "b": 2}
    for name in ("a.jpg", "z/a.jpg"):
        with pytest.raises(DataError, match="may be the picture 'images/x/a' or 'images/y/a'"):
            opened(tmp_path, content=coco_text(images=[{"id": 12, "file_name": name}]))
    twice = [{"id": k, "file_name": name} for k, name in enumerate(["p/b.jpg", "q/b.jpg"])]
    with pytest.raises(DataError, match="may both be the picture 'images/b'"):
        opened(tmp_path, content=coco_text(images=twice, annotations=[]))


@pytest.mark.parametrize("named", ["a.png", "train/a.png"])
def test_a_picture_of_another_split_does_not_get_the_label_of_its_namesake(tmp_path, named):
    """Names agree but for folders, so train/a and val/a would both have the one entry, each in a split of its own."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (SIZE[1], SIZE[0]), (9, 90, 200)).save(tmp_path / split / "a.png")
    for file, name in (("one.json", named), ("two.json", "a.png")):
        (tmp_path / file).write_text(json.dumps(coco_text(images=[{"id": 12, "file_name": name}])))
    task = {"task": "Semantic", "classes": ["background", "car", "dog"], "map": {"chair": "ignore"}}
    for labels in ("one.json", ["one.json", "two.json"]):
        told = {"path": str(tmp_path), "images": "{split}/*.png", "tasks": {"seg": {**task, "labels": labels}}}
        for split, other in (("train", "val"), ("val", "train")):
            with pytest.raises(DataError, match=f"may be the picture '{split}/a' or '{other}/a'; give each picture"):
                folder(told, split)
    (tmp_path / "one.json").rename(tmp_path / "train.json")
    (tmp_path / "two.json").rename(tmp_path / "val.json")
    told = {"path": str(tmp_path), "images": "{split}/*.png", "tasks": {"seg": {**task, "labels": "{split}.json"}}}
    assert [len(folder(told, split)) for split in ("train", "val")] == [1, 1], "as the message says"


@pytest.mark.parametrize("named", ["a.png", "s1/a.png"])
def test_a_namesake_without_annotation_is_left_out_by_a_list(tmp_path, named):
    write_pictures(tmp_path, ["s1/a", "s1/b", "s2/a"])
    images = [{"id": 12, "file_name": named}, {"id": 13, "file_name": "b.png"}]
    with pytest.raises(DataError, match=r"'images/s1/a' or 'images/s2/a'.*list the annotated pictures under `splits`"):
        opened(tmp_path, content=coco_text(images=images))
    listed = opened(tmp_path, content=coco_text(images=images), splits={"train": ["s1/a", "s1/b"]})
    assert [listed.picture_name(k) for k in range(2)] == ["s1/a", "s1/b"]
    assert target(listed, 0)[4, 5] == 2


def test_pictures_that_the_file_lacks_lack_the_task(tmp_path):
    write_pictures(tmp_path, ["a", "b"])
    assert len(opened(tmp_path, content=coco_text())) == 1, "pictures without labels are left out of train"
    empty = [*coco_text()["images"], {"id": 13, "file_name": "b.png"}]
    found = opened(tmp_path, content=coco_text(images=empty))
    assert len(found) == 2 and not target(found, 1).any(), "a picture without objects is background"
    with pytest.raises(DataError, match=r"which names no picture 'images/a', but 1 such as 'c.png'"):
        opened(tmp_path, content=coco_text(images=[{"id": 1, "file_name": "c.png"}], annotations=[]))


def test_sizes_must_be_those_of_the_picture_or_turned_with_it(tmp_path):
    write_pictures(tmp_path, ["a"], SIZE[::-1])
    with pytest.raises(
        DataError, match="states 17x11 for the picture 'images/a', which is 11x17; one of them is turned"
    ):
        opened(tmp_path, content=coco_text())[0]
    stored = Image.fromarray(np.zeros((*SIZE, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "images" / "a.png", exif=exif)
    turned = target(opened(tmp_path, {"orientation": "stored"}))
    assert (turned == np.rot90(np.where(DOG, 2, CAR.astype(int)), -1)).all()
    write_pictures(tmp_path, ["a"], (11, 18))
    with pytest.raises(DataError, match="states 17x11"):
        opened(tmp_path)[0]


def test_what_is_no_area_is_told_once(tmp_path, caplog):
    content = coco_text()
    content["annotations"] += [
        {"image_id": 12, "category_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 12, "category_id": 7, "bbox": [1, 2, 3, 4], "segmentation": []},
        {"image_id": 12, "category_id": 7, "segmentation": [[1, 2, 3, 4]]},
        {"image_id": 99, "category_id": 7, "segmentation": [INNER]},
    ]
    with caplog.at_level(logging.WARNING):
        found = opened(tmp_path, content=content)
        found[0], found[0]
    told = [r.message for r in caplog.records if "no areas" in r.message]
    assert len(told) == 1 and told[0].endswith(
        "2 boxes, 1 polygon of fewer than 3 points, 1 object of a picture that is not under `images`"
    )


def test_of_files_of_one_picture_it_is_told_together(tmp_path, caplog):
    annotation_samples.write_labelme(tmp_path, 30)
    counts = {"points": 0, "line": 0}
    for number, file in enumerate(sorted(tmp_path.glob("*.json"))):
        content = json.loads(file.read_text())
        more = ["points"] * (number % 3) + ["line"] * (number == 7)
        for kind in more:
            counts[kind] += 1
            content["shapes"].append({"label": "car", "shape_type": kind, "points": [[1, 2], [3, 4]]})
        file.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        data = gn.folder(tmp_path)
        for index in range(len(data)):
            data[index]
    (told,) = [r.message for r in caplog.records if "no areas" in r.message]
    assert told == (
        "{name}.json: left out of 30 files, as they are no areas: 1 line in 1 file (e.g. street_007.json),"
        f" {counts['points']} points in 20 files (e.g. street_001.json)"
    )


def test_of_files_that_are_read_one_by_one_the_first_of_a_kind_is_told(tmp_path, caplog):
    annotation_samples.write_labelme(tmp_path, 12)
    for file in tmp_path.glob("*.json"):
        content = json.loads(file.read_text())
        content["shapes"].append({"label": "car", "shape_type": "line", "points": [[1, 2], [3, 4]]})
        file.write_text(json.dumps(content))
    seg = {"task": "Semantic", "labels": "{name}.json", "classes": ["background", *annotation_samples.CLASSES]}
    with caplog.at_level(logging.WARNING):
        data = gn.folder({"images": "*.jpg", "tasks": {"seg": seg}}, root=tmp_path)
        for index in range(len(data)):
            data[index]
    (told,) = [r.message for r in caplog.records if "no areas" in r.message]
    assert told.endswith("1 line; of other files of this folder such are not told")


def test_sets_with_such_labels_are_joined_loaded_and_balanced(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    parts = [opened(tmp_path / name, content=coco_text()) for name in ("one", "two")]
    both = join(*parts)
    assert len(both) == 2 and both.windows(0) is None and (target(both, 1) == target(parts[1])).all()
    points = ClassPoints(both, "t")[0]
    assert sorted(points) == [0, 1, 2] and all(DOG[row, column] for row, column in points[2])
    assert parts[0].content(0) == parts[1].content(0)
    before = parts[0].key(0)
    (tmp_path / "one" / "coco.json").write_text(json.dumps(coco_text(info={})))
    assert parts[0].key(0) != before, "kept features are those of labels that did not change"
    assert opened(tmp_path / "one", {"overlap": "later"}).content(0) != parts[0].content(0)


def panoptic(root, numbers, segments, **changed):
    """A panoptic set of picture "a"."""
    write_pictures(root, ["a"])
    (root / "pan").mkdir(exist_ok=True)
    rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)
    Image.fromarray(rgb).save(root / "pan" / "a.png")
    entry = {"image_id": 12, "file_name": "a.png", "segments_info": segments, **changed}
    (root / "pan.json").write_text(json.dumps(coco_text(annotations=[entry])))
    return opened(root, {"labels": "pan.json"})


def test_panoptic_segments_are_read_by_their_numbers(tmp_path):
    numbers = np.where(DOG, 5 + 256 * 3 + 65536 * 9, np.where(CAR, 300, np.where(box(0, 9, 17, 11), 7, 0)))
    segments = [
        {"id": 5 + 256 * 3 + 65536 * 9, "category_id": 3},
        {"id": 300, "category_id": 7, "iscrowd": 0},
        {"id": 7, "category_id": 7, "iscrowd": 1},
        {"id": 8, "category_id": 7},
    ]
    found = panoptic(tmp_path, numbers, segments)
    assert (target(found) == np.where(DOG, 2, np.where(CAR, 1, np.where(box(0, 9, 17, 11), 255, 0)))).all()
    before = found.key(0)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "pan" / "a.png")
    assert found.key(0) != before and not target(found).any()
    with pytest.raises(DataError, match="segment 7, which segments_info does not list"):
        panoptic(tmp_path, numbers, segments[:2])[0]
    with pytest.raises(DataError, match=r"without '..'"):
        panoptic(tmp_path, numbers, segments, file_name="../a.png")
    with pytest.raises(DataError, match="that of two segments"):
        panoptic(tmp_path, numbers, [segments[0], segments[0]])
    with pytest.raises(DataError, match="but its picture is 17x11"):
        panoptic(tmp_path, numbers[:-1], segments)[0]


def test_both_formats_are_told_apart_and_files_are_read_once(tmp_path, monkeypatch):
    panoptic(tmp_path, CAR.astype(int), [{"id": 1, "category_id": 7}])
    opened(tmp_path, content=coco_text())
    made = read_annotations(tmp_path / "pan.json")
    assert made.format.kind == "coco_panoptic" and read_annotations(tmp_path / "coco.json").format.kind == "coco"
    monkeypatch.setattr(made.format, "read", None)
    assert read_annotations(tmp_path / "pan.json") is made
    with pytest.raises(OptionError, match=r"tasks.t.format: unknown format 'cocoa'; did you mean 'coco'"):
        opened(tmp_path, {"format": "cocoa"})
    (tmp_path / "coco.json").write_text('{"shapes": 3}')
    with pytest.raises(GarnishError, match=r"is of no known format; known: .*COCO instances"):
        opened(tmp_path)


def test_polygons_of_an_object_are_one_object(tmp_path):
    content = coco_text()
    content["annotations"] = [
        {"image_id": 12, "category_id": 7, "segmentation": [SQUARE, [0.0, 8, 6.5, 8, 6.5, 11, 0, 11]]}
    ]
    mask, _ = fill_polygons([np.array([[0, 8], [6.5, 8], [6.5, 11], [0, 11]])], SIZE)
    assert int((target(opened(tmp_path, content=content)) == 1).sum()) == int(CAR.sum()) + int(mask.sum())
