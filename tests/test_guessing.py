"""Folders without a description: each layout is guessed right to the pixel, or refused with the right question."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import annotation_samples
import garnish as gn
from garnish.data.description_file import read_description
from garnish.data.guessing.guessed import Guessed, guessed
from garnish.data.guessing.writing import write_description
from garnish.errors import DataError
from garnish.tasks.semantic import Semantic
from guessing_sets import COLOURS, LAYOUTS, NAMES, SIZE, depth_mm, edges, flat_binary, ids, photo, put, rooms

TOOLS = ["labelme", "cvat", "label_studio", "yolo", "coco", "colour_masks"]


def opened(found: Guessed, file: Path):
    """(name, sample) of all pictures of all splits of the description that is written."""
    write_description(found, file)
    pictures = []
    for split in read_description(file).known_splits():
        data = gn.folder(file, split)
        pictures += [(split, data.picture_name(k), data[k], data.tasks) for k in range(len(data))]
    return pictures


def check(found: Guessed, file: Path, truth, classes) -> None:
    """Every target of the written description is what the layout was made of, and none is missing."""
    seen = {task: set() for task in truth}
    for split, name, sample, tasks in opened(found, file):
        assert set(tasks) == set(truth)
        for task, target in sample.targets.items():
            key = next(k for k in (f"{split}/{name}", name) if k in truth[task])
            seen[task].add(key)
            values, wanted = target.numpy(), truth[task][key]
            if isinstance(tasks[task], Semantic):
                if classes is not None:
                    assert set(tasks[task].classes) == set(classes)
                    order = np.array([*map(tasks[task].classes.index, classes), *[255] * (256 - len(classes))])
                    wanted = order[wanted]
                np.testing.assert_array_equal(values, wanted)
            elif task == "normals":  # 8 bits are wrong by half a step in each axis
                assert np.degrees(np.arccos(np.clip((values * wanted).sum(0), -1, 1))).max() < 0.8
            else:
                np.testing.assert_allclose(values[0], wanted, rtol=1e-6)
    assert seen == {task: set(known) for task, known in truth.items()}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layouts(tmp_path, layout):
    root = tmp_path / "set"
    root.mkdir()
    truth = layout(root)
    found = guessed(root)
    assert found.sure, found.questions
    check(found, tmp_path / "data.yaml", truth, LAYOUTS[layout])


@pytest.mark.parametrize("tool", TOOLS)
def test_exports_of_annotation_tools(tmp_path, tool):
    root = tmp_path / "set"
    root.mkdir()
    truth = getattr(annotation_samples, f"write_{tool}")(root, 6, SIZE)
    found = guessed(root)
    assert found.sure, found.questions
    if tool == "coco":  # names of pictures have the folder of the export
        truth = {f"default/{name}": values for name, values in truth.items()}
    check(found, tmp_path / "data.yaml", {"seg": truth}, ["background", *annotation_samples.CLASSES])


# what a guess says


def test_what_is_told_of_several_tasks(tmp_path, caplog):
    rooms(tmp_path)
    caplog.set_level(logging.INFO, "garnish.data")
    data = gn.folder(tmp_path)
    assert data.describe() == {"seg": 6, "depth": 6, "normals": 6, "edges": 6} and len(gn.folder(tmp_path, "val")) == 2
    told = caplog.text
    assert "semantic/{split}/{name}.png: Semantic, 90% sure (ids 0 to 3, 4 classes read from 6 training masks" in told
    deepest = max(int(depth_mm(number).max()) for number in range(6))
    assert f"16-bit numbers up to {deepest}, median" in told and "millimetres" in told
    assert "x right, y up, z backward" in told and "lines are black" in told
    assert "instance/{split}/{name}.png left out: numbers of objects" in told
    assert guessed(tmp_path).description["tasks"]["depth"]["max_metres"] == math.ceil(deepest / 1000)


def test_pictures_are_held_out_by_groups_only(tmp_path):
    flat_binary(tmp_path / "groups")
    assert guessed(tmp_path / "groups").description["hold_out"] == 0.2
    for number in range(8):
        photo(tmp_path / f"video/images/{number:04d}.jpg", number)
        put(tmp_path / f"video/masks/{number:04d}.png", ids(number))
    found = guessed(tmp_path / "video")
    assert found.sure and "hold_out" not in found.description
    assert any("write `hold_out: {share: 0.2, by: picture}`" in line for line in found.lines)


@pytest.mark.parametrize("axes", ["x right, y down, z forward", "x left, y up, z forward", "x right, y up, z backward"])
@pytest.mark.parametrize("ending", ["png", "npy"])
def test_axes_of_normals(tmp_path, axes, ending):
    from guessing_sets import normals

    signs = np.array([1 if word in axes else -1 for word in ("right", "down", "forward")])
    for number, name in enumerate(NAMES):
        photo(tmp_path / f"images/{name}.jpg", number)
        stored = np.moveaxis(normals(number), 0, -1) * signs
        if ending == "png":
            stored = np.rint((stored + 1) * 127.5).astype(np.uint8)
        put(tmp_path / f"normals/{name}.{ending}", stored)
    assert guessed(tmp_path).description["tasks"]["normals"]["axes"] == axes


def test_flat_normals_ask_for_their_axes(tmp_path):
    for number, name in enumerate(NAMES):
        photo(tmp_path / f"images/{name}.jpg", number)
        put(tmp_path / f"normals/{name}.npy", np.broadcast_to(np.float32([0.6, 0, -0.8]), (*SIZE, 3)))
    found = guessed(tmp_path)
    assert any("the direction of x and y cannot be told from the files" in line for line in found.lines)


@pytest.mark.parametrize(
    ("name", "factor", "unit", "metres"), [("depth_cm", 0.1, "cm", 4), ("depth_mm", 1, "mm", 4), ("depth", 1, "mm", 4)]
)
def test_units_of_depth(tmp_path, name, factor, unit, metres):
    for number, picture in enumerate(NAMES):
        photo(tmp_path / f"images/{picture}.jpg", number)
        put(tmp_path / f"{name}/{picture}.png", (depth_mm(number) * factor).astype(np.uint16))
    task = guessed(tmp_path).description["tasks"]["depth"]
    assert (task["unit"], task["max_metres"]) == (unit, metres)


def test_sentinels_of_depth(tmp_path):
    for number, picture in enumerate(NAMES):
        photo(tmp_path / f"images/{picture}.jpg", number)
        values = depth_mm(number)
        values[:3] = 65535
        put(tmp_path / f"depth/{picture}.png", values)
    task = guessed(tmp_path).description["tasks"]["depth"]
    assert task["invalid"] == [65535] and task["max_metres"] == 4


def test_full_numbers_of_disparity_are_none(tmp_path):
    def disparity(number):
        steps = (6000 - depth_mm(number)).astype(np.uint16)
        steps[4:8, 5:20] = 65535
        return steps

    beside(tmp_path, "disparity", disparity)
    found = guessed(tmp_path)
    assert found.description["tasks"]["depth"]["invalid"] == [65535]
    assert "65535 is none" in found.reasons["depth"]


def test_outlines_without_a_label(tmp_path):
    for number, name in enumerate(NAMES):
        photo(tmp_path / f"images/{name}.jpg", number)
        put(tmp_path / f"masks/{name}.png", np.where(edges(number), 4, ids(number)).astype(np.uint8))
    found = guessed(tmp_path)
    task = found.description["tasks"]["seg"]
    assert (task["classes"], task["ignore"]) == (4, [4]) and "between other ids" in found.reasons["seg"]


def test_a_list_of_classes_beside_ids(tmp_path):
    flat_binary(tmp_path)
    for number, name in enumerate(NAMES):
        put(tmp_path / f"masks/{name}.png", ids(number))
    (tmp_path / "classes.txt").write_text("nothing\nroad\ncar\ntree\nbus\n")
    assert guessed(tmp_path).description["tasks"]["seg"]["classes"] == ["nothing", "road", "car", "tree", "bus"]
    (tmp_path / "classes.txt").write_text("\n".join(f"c{k}" for k in range(60)))
    assert guessed(tmp_path).description["tasks"]["seg"]["classes"] == 4  # a list of another set


def test_ids_in_a_folder_of_edges(tmp_path):
    beside(tmp_path, "edges", ids)
    task = guessed(tmp_path).description["tasks"]["edges"]
    assert task["task"] == "Edges" and task["from"] == "boundaries"


def test_a_table_with_a_column_of_splits(tmp_path):
    lines = []
    for number, name in enumerate(NAMES):
        row = {
            "file_name": f"x/{name}.jpg",
            "depth_file_name": f"y/{number}.png",
            "split": "val" if number < 2 else "train",
        }
        photo(tmp_path / row["file_name"], number)
        put(tmp_path / row["depth_file_name"], depth_mm(number))
        lines.append(json.dumps(row))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    truth = {f"x/{name}": depth_mm(number) / 1000 for number, name in enumerate(NAMES)}
    check(guessed(tmp_path), tmp_path / "data.yaml", {"depth": truth}, None)
    assert len(gn.folder(tmp_path / "data.yaml", "val")) == 2


# refused, with the question that helps


def refused(root: Path) -> str:
    found = guessed(root)
    assert not found.sure
    with pytest.raises(DataError) as error:
        gn.folder(root)
    text = str(error.value)
    assert "\n" not in text and f"`garnish check {root} --write data.yaml`" in text
    yaml.safe_load(text.split("give that file: ")[1])
    with pytest.raises(DataError):
        write_description(found, root / "data.yaml")
    assert not (root / "data.yaml").exists()
    return text


def beside(root: Path, folder: str, values, ending: str = ".png", **options) -> None:
    for number, name in enumerate(NAMES):
        photo(root / f"images/{name}.jpg", number)
        put(root / f"{folder}/{name}{ending}", values(number), **options)


def quantised(number: int) -> np.ndarray:
    return (depth_mm(number) // 150).astype(np.uint8)


def test_photographs_in_a_folder_called_masks(tmp_path):
    beside(tmp_path, "images", ids)
    for number, name in enumerate(NAMES):
        photo(tmp_path / f"images/{name}.jpg", number)
        (tmp_path / f"images/{name}.png").unlink()
        photo(tmp_path / f"masks/{name}.jpg", number + 20)
    assert "masks/{name}.jpg holds photographs" in refused(tmp_path)


def test_depth_that_looks_like_ids(tmp_path):
    beside(tmp_path, "other", quantised)
    assert "no labels beside" in refused(tmp_path) or "write `task: Semantic`" in refused(tmp_path)


def test_16_bit_numbers_of_few_values(tmp_path):
    beside(tmp_path, "masks", lambda number: ids(number).astype(np.uint16) * np.uint16(1500))
    assert "List what they become under `map`" in refused(tmp_path)


@pytest.mark.parametrize(("most", "first", "files"), [(3, 2, 8), (500, 1, 30)])
def test_ids_of_classes_and_objects(tmp_path, most, first, files):
    def numbered(number):  # classes before the first are themselves, the others times 1000, plus a number
        classes = ids(number).astype(np.uint16)
        place = np.arange(SIZE[0], dtype=np.uint16)[:, None] // 2 + 19 * number
        numbers = np.where(classes < first, classes, classes * 1000 + place % most)
        numbers[:3, :3] = 65535 if first == 1 else numbers[:3, :3]
        return numbers

    for number in range(files):
        photo(tmp_path / f"images/{number:02d}.jpg", number)
        put(tmp_path / f"masks/{number:02d}.png", numbered(number))
    message = refused(tmp_path)
    assert "write `divide: 1000`" in message.lower()
    given = yaml.safe_load(message.split("give that file: ")[1])
    data = gn.folder({**given, "hold_out": None}, root=tmp_path)
    for number in range(files):
        wanted = ids(number)
        wanted[:3, :3] = 255 if first == 1 else wanted[:3, :3]
        np.testing.assert_array_equal(data[number].targets["seg"].numpy(), wanted)


@pytest.mark.parametrize(
    ("folder", "values", "ending", "question"),
    [
        ("depth", lambda n: (depth_mm(n) // 16).astype(np.uint8), ".png", "8-bit depth, whose unit cannot be guessed"),
        ("depth", lambda n: depth_mm(n) * np.uint16(8), ".png", "depth in an unknown unit"),
        ("depth", lambda n: depth_mm(n) * np.uint16(np.arange(SIZE[1]) % 4 == 0), ".png", "laser scanners"),
        ("depth", lambda n: (depth_mm(n) / depth_mm(n).max()).astype(np.float32), ".npy", "end at exactly 1"),
        ("depth", lambda n: COLOURS[ids(n)], ".png", "holds colours"),
        ("normals", lambda n: COLOURS[ids(n)], ".png", "of the vectors have length 1"),
        ("masks", lambda n: ids(n) * np.uint8(0), ".png", "nothing but id 0"),
        ("masks", lambda n: ids(n)[:-2], ".png", "labels have the size of their picture"),
        ("masks", lambda n: np.array([0, 128, 255, 0], np.uint8)[ids(n)], ".png", "three classes, or grey levels"),
        (
            "masks",
            lambda n: np.array([0, 85, 170, 255], np.uint8)[ids(n) % 4],
            ".png",
            "in equal steps: is 255 one more class",
        ),
    ],
)
def test_questions(tmp_path, folder, values, ending, question):
    beside(tmp_path, folder, values, ending)
    assert question in refused(tmp_path)


@pytest.mark.parametrize("colours", [False, True])
def test_masks_with_lossy_compression(tmp_path, colours):
    beside(tmp_path, "masks", lambda n: COLOURS[ids(n)] if colours else ids(n) * np.uint8(60), ".jpg", quality=75)
    assert "compression" in refused(tmp_path)


def test_too_many_colours_start_from_the_commonest(tmp_path):
    blend = np.linspace(0, 1, SIZE[1])[None, :, None]

    def blended(number):
        flat = COLOURS[ids(number)]
        flat[-12:] = (blend * COLOURS[1] + (1 - blend) * COLOURS[3]).astype(np.uint8)  # at most 53 colours a file
        flat[-1] = np.arange(SIZE[1] * 3).reshape(-1, 3) * (number + 1) % 256
        return flat

    for number in range(40):
        photo(tmp_path / f"images/{number:02d}.jpg", number)
        put(tmp_path / f"masks/{number:02d}.png", blended(number))
    message = refused(tmp_path)
    named = re.search(r"(\S+\.png) holds (\d+) colours, too many for classes", message)
    held = np.asarray(Image.open(named[1])).reshape(-1, 3)
    assert int(named[2]) == len(np.unique(held, axis=0))
    entry = yaml.safe_load(message.split("give that file: ")[1])["tasks"]["seg"]
    true = {tuple(colour) for colour in COLOURS.tolist()}
    assert true & {tuple(row) for row in held.tolist()} <= {tuple(colour) for colour in entry["colours"].values()}
    assert entry["classes"] == list(entry["colours"])


def test_two_folders_of_one_kind(tmp_path):
    beside(tmp_path, "masks", ids)
    beside(tmp_path, "labels", lambda n: (ids(n) > 0).astype(np.uint8))
    assert "are both Semantic; which of them is meant?" in refused(tmp_path)


def test_the_same_labels_as_ids_and_in_colours(tmp_path):
    beside(tmp_path, "masks", ids)
    beside(tmp_path, "labels", lambda n: COLOURS[ids(n)])
    found = guessed(tmp_path)
    assert found.sure and found.description["tasks"]["seg"]["labels"] == "masks/{name}.png"
    assert any("the same labels" in line for line in found.left_out)


def test_names_that_do_not_pair(tmp_path):
    for number in range(6):
        photo(tmp_path / f"images/{'abcdef'[number]}x.jpg", number)
        put(tmp_path / f"masks/{'uvwxyz'[number]}y.png", ids(number))
    assert "no file is named as a picture, e.g. masks/" in refused(tmp_path)


def test_names_that_nearly_pair(tmp_path):
    for number in range(6):
        photo(tmp_path / f"images/Street-{number}a.jpg", number)
        put(tmp_path / f"masks/street_{number:03d}a.png", ids(number))
    assert "is named nearly as" in refused(tmp_path)


def test_nothing_and_too_much(tmp_path):
    (tmp_path / "empty/.hidden").mkdir(parents=True)
    assert "no folder images" in refused(tmp_path / "empty")
    for part in ("one", "two"):
        for number in range(3):
            photo(tmp_path / f"sets/{part}/images/{number}.jpg", number)
            put(tmp_path / f"sets/{part}/masks/{number}.png", ids(number))
    assert "the pictures may be those of sets" in refused(tmp_path) or "one/images" in refused(tmp_path / "sets")


# writing


def test_a_written_description(tmp_path):
    flat_binary(tmp_path / "a set")
    found = guessed(tmp_path / "a set")
    file = tmp_path / "data.yaml"
    write_description(found, file)
    text = file.read_text()
    assert yaml.safe_load(text)["path"] == "a set" and "# 7" in text and "white on black" in text
    before = text
    with pytest.raises(DataError, match=r"data\.yaml: exists"):
        write_description(found, file)
    assert file.read_text() == before and sorted(path.name for path in tmp_path.iterdir()) == ["a set", "data.yaml"]
    with pytest.raises(DataError, match="no folder"):
        write_description(found, tmp_path / "none/data.yaml")


def test_names_of_strangers_do_not_leave_their_comment(tmp_path):
    for number, name in enumerate(NAMES):
        photo(tmp_path / f"set/images/{name}.jpg", number)
        put(tmp_path / f"set/masks/{name}.png", ids(number))
        photo(tmp_path / f"set/images\ntasks: {{}}\n/{name}.jpg", number)
    write_description(guessed(tmp_path / "set"), tmp_path / "data.yaml")
    assert list(yaml.safe_load((tmp_path / "data.yaml").read_text())["tasks"]) == ["seg"]


def test_links_and_depth_are_bounded(tmp_path):
    flat_binary(tmp_path / "set")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "/".join("d" * 20)).mkdir(parents=True)
    found = guessed(tmp_path / "set")
    assert found.sure and any("loop left out: a link" in line for line in found.left_out)
    Image.new("RGB", (3, 3)).save(tmp_path / "set/masks/broken.png")
    assert guessed(tmp_path / "set").sure


@pytest.mark.parametrize(
    ("names", "told", "options"),
    [
        (
            ["road", "car", "tree"],
            "ids 0 to 3 and 3 names in classes.txt (road, car, tree): is 0 the background, which the list lacks"
            " (`classes: [background, road, car, tree]`), or is 3 no label (`ignore: 3`)",
            {"classes": ["background", "road", "car", "tree"]},
        ),
        (
            ["background", "road", "car"],
            "ids 0 to 3 and 3 names in classes.txt (background, road, car): is 3 no label (`ignore: 3`), or a class",
            {"classes": ["background", "road", "car"], "ignore": [3]},
        ),
    ],
)
def test_one_id_more_than_names(tmp_path, names, told, options):
    beside(tmp_path, "masks", ids)
    (tmp_path / "classes.txt").write_text("\n".join(names))
    message = refused(tmp_path)
    assert told in message
    entry = yaml.safe_load(message.split("give that file: ")[1])["tasks"]["seg"]
    assert {key: entry[key] for key in options} == options
    Semantic(classes=entry["classes"])


def test_a_class_list_whose_first_name_no_mask_has(tmp_path):
    """Ids 1 to 3 and four names: counted from 1 without the last class, or from 0 without the first?"""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 255, (21, 33, 3)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / f"{number}.png")
        held = np.ones((21, 33), np.uint8)
        held[8:], held[14:, 10:] = 2, 3
        Image.fromarray(held).save(tmp_path / "masks" / f"{number}.png")
    names = tmp_path / "classes.txt"
    names.write_text("sky\nroad\ncar\ntree\n")
    with pytest.raises(DataError, match="is 0 'sky', which no mask has, or is 1"):
        gn.folder(tmp_path)
    names.write_text("background\nroad\ncar\ntree\n")
    assert list(gn.folder(tmp_path).tasks["seg"].legend()) == ["background", "road", "car", "tree"]
