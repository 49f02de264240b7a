"""What LabelMe, CVAT, Label Studio and YOLO write is read as it was drawn; what nobody meant ends in one line."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import annotation_samples as samples
import garnish as gn
from garnish.data.annotation_files import format_of, read_annotations
from garnish.data.annotation_parts.brush_bits import alpha_of_bits
from garnish.data.annotation_parts.outlines import ellipse, rectangle
from garnish.data.annotation_parts.picture_names import address_name
from garnish.data.annotation_parts.row_runs import mask_of_rows
from garnish.data.annotations.annotation_format import Annotations
from garnish.data.annotations.filling import fill_polygons
from garnish.data.annotations.shape import Shape
from garnish.errors import DataError

CLASSES = ["background", *samples.CLASSES]
#: writer → its kind, and the template of its labels
SETS = {
    samples.write_labelme: ("labelme", "{name}.json", "*.jpg"),
    samples.write_cvat: ("cvat", "annotations.xml", "images/*.jpg"),
    samples.write_label_studio: (
        "label_studio",
        "project-1-at-2026-05-04-10-20-deadbeef.json",
        "images/*.jpg",
    ),
    samples.write_yolo: ("yolo", "labels/{name}.txt", "images/*.jpg"),
}


def read(folder: Path, name: str, content: str | bytes | object) -> Annotations:
    """What a file holds that is written to a folder; JSON of anything but text and bytes."""
    file = folder / name
    data = content if isinstance(content, str | bytes) else json.dumps(content)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_annotations(file).held


def shapes_of(held: Annotations, size: tuple[int, int]) -> Sequence[Shape]:
    """The objects of the only picture of a file."""
    (picture,) = held.pictures.values()
    return list(picture.shapes(size))


def painted(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool of one object."""
    made = np.zeros(size, bool)
    mask, (top, left) = (shape.mask, shape.corner) if shape.mask is not None else fill_polygons(shape.polygons, size)
    made[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return made


@pytest.mark.parametrize("writer", SETS, ids=lambda writer: writer.__name__)
@pytest.mark.parametrize("size", [samples.SIZE, (64, 71)], ids=str)
def test_every_pixel_has_the_class_that_was_drawn(tmp_path: Path, writer, size):
    kind, labels, images = SETS[writer]
    truth = writer(tmp_path, 2, size)
    options = {"map": dict(enumerate(samples.CLASSES))} if kind == "yolo" else {}
    task = {"task": "Semantic", "labels": labels, "classes": CLASSES, **options}
    data = gn.folder({"images": images, "tasks": {"seg": task}}, root=tmp_path)
    assert len(data) == len(truth)
    for index in range(len(data)):
        ids = np.asarray(data[index].targets["seg"])
        assert np.array_equal(ids, truth[data.picture_name(index)])
    file = data.label_files(0)["seg"]
    assert format_of(file).kind == kind  # by its first bytes, and by no other format


def test_labels_of_cvat_keep_their_order_and_types_without_areas_are_none(tmp_path: Path):
    samples.write_cvat(tmp_path, 1)
    text = (tmp_path / "annotations.xml").read_text("utf-8")
    assert read_annotations(tmp_path / "annotations.xml").held.classes == samples.CLASSES
    more = (
        "<labels><label><name>sky</name><type>any</type></label><label><name>lane</name><type>polyline</type></label>"
        "<label><name>hand</name><type>points</type><parent>body</parent></label>"
    )
    held = read(tmp_path, "more.xml", text.replace("<labels>", more, 1))
    assert held.classes == ("sky", *samples.CLASSES) and held.objects == dict.fromkeys(samples.CLASSES, 1)


def cvat(*shapes: str, images: str | None = None) -> str:
    inside = images or f'<image id="0" name="dir/a.png" width="9" height="7">{"".join(shapes)}</image>'
    return f"<annotations><version>1.1</version>{inside}</annotations>"


def of_cvat(folder: Path, shape: str, size: tuple[int, int] = (7, 9)) -> np.ndarray:
    images = f'<image id="0" name="a.png" width="{size[1]}" height="{size[0]}">{shape}</image>'
    held = read(folder, "a.xml", cvat(images=images))
    (found,) = held.pictures["a.png"].shapes(size)
    return painted(found, size)


def test_a_published_mask_of_cvat_is_read_row_by_row_from_zeros():
    # cvat-ai/cvat#4723, the first mask that somebody posted: a disc of 40 by 40 pixels
    runs = (
        "17, 10, 27, 15, 23, 18, 20, 21, 18, 23, 16, 24, 15, 26, 13, 27, 13, 27, 12, 29, 10, 30, 9, 32, 7, "
        "34, 5, 36, 3, 38, 2, 38, 2, 39, 1, 39, 1, 120, 1, 39, 1, 39, 1, 39, 2, 38, 2, 38, 3, 37, 3, 37, 3, "
        "37, 4, 36, 4, 35, 6, 34, 7, 33, 7, 32, 9, 30, 10, 29, 13, 26, 15, 23, 18, 20, 22, 15, 12"
    )
    mask = mask_of_rows(runs, (40, 40), "x")
    assert mask.sum() == sum(map(int, runs.split(",")[1::2]))
    assert mask[0].nonzero()[0].tolist() == list(range(17, 27))  # 17 zeros, 10 ones
    edges = np.abs(np.diff(mask.astype(int), axis=1)).sum(1)
    assert edges.max() <= 2  # one piece in every row, which another order of pixels would not give
    with pytest.raises(DataError, match="add up to the 41x40"):
        mask_of_rows(runs, (40, 41), "x")


@pytest.mark.parametrize("degrees", [0, 30, 90, 213.5, -45])
def test_turned_boxes_and_ellipses_hold_the_pixels_of_their_formula(tmp_path: Path, degrees: float):
    size, (cx, cy), (rx, ry) = (53, 61), (29.3, 25.8), (19.25, 9.4)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = (x - cx) * cos + (y - cy) * sin, -(x - cx) * sin + (y - cy) * cos  # turned back, y goes down
    common = f'label="a" occluded="0" rotation="{degrees}" z_order="0"'
    box = f'<box {common} xtl="{cx - rx}" ytl="{cy - ry}" xbr="{cx + rx}" ybr="{cy + ry}"></box>'
    assert np.array_equal(of_cvat(tmp_path, box, size), (np.abs(u) < rx) & (np.abs(v) < ry))
    round_one = f'<ellipse {common} cx="{cx}" cy="{cy}" rx="{rx}" ry="{ry}"></ellipse>'
    level = (u / rx) ** 2 + (v / ry) ** 2
    wrong = of_cvat(tmp_path, round_one, size) != (level < 1)
    assert np.abs(level[wrong] - 1).max(initial=0) < 0.01  # a hundredth of a pixel along the border


def test_turned_rectangles_of_label_studio_keep_their_stored_corner(tmp_path: Path):
    # label-studio#5274: x, y is the corner as it lies after the turn; percents are turned as pixels (#2293)
    value = {"x": 40, "y": 20, "width": 30, "height": 25, "rotation": 30, "rectanglelabels": ["a"]}
    held = read(tmp_path, "a.json", [task(region(value, (60, 90)))])
    size = (60, 90)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    u, v = (x - 36) * cos + (y - 12) * sin, -(x - 36) * sin + (y - 12) * cos
    (shape,) = shapes_of(held, size)
    assert np.array_equal(painted(shape, size), (u > 0) & (u < 27) & (v > 0) & (v < 15))


def test_outlines_of_many_points_and_of_no_size():
    assert len(ellipse((0, 0), (1e6, 1e6))) == 4096 and len(ellipse((5, 5), (0, 0))) == 8
    assert rectangle((1, 2), (3, 4)).tolist() == [[1, 2], [4, 2], [4, 6], [1, 6]]


# made by label_studio_converter.brush.encode_rle (0.0.59) of the masks below, four equal numbers a pixel, 255 on it
DISC = bytes.fromhex("000000fc391bfe1f008ffed805bffc260184ffe3008ffe700c27ff7c0309ffc6011ffdb00b7ff8ac023ff0")
# by the same, of RGBA (20, 30, 40, 255) with a soft left side of opacity 100, and lone pixels of 127 and 128
SOFT = bytes.fromhex(
    "000000dc391bfe27000004002000c07f9c0000900200070190014007802803fc014007802803fc014007802803fc01400780"
    "2803fc014007802803fc014007802803fef800012004000e032002800f005007f802800f005007f802800f005007f802800f"
    "005007f802800f005007f802800f005007fdf000024008001c064005001e00a00ff005001e00a00ff005001e00a00ff00500"
    "1e00a00ff005001e00a00ff005001e00a00ff9c000010008003020313800"
)


def test_brush_masks_are_those_of_the_published_encoder():
    y, x = np.mgrid[:7, :9]
    disc = ((x - 4) ** 2 + (y - 3) ** 2 < 8) | ((x == 8) & (y % 2 == 0))
    assert np.array_equal(alpha_of_bits(DISC, (7, 9), "x"), disc * np.uint8(255))
    soft = np.zeros((5, 11), np.uint8)
    soft[1:4, 2:9], soft[1:4, 2], soft[4, 0], soft[0, 10] = 255, 100, 128, 127
    assert np.array_equal(alpha_of_bits(SOFT, (5, 11), "x"), soft)


@pytest.mark.parametrize("sizes", [(3, 4, 8, 16), (1, 2, 3, 4), (16, 16, 16, 16), (2, 5, 6, 9)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (13, 7), (1, 77)], ids=str)
def test_brush_masks_of_any_sizes_of_runs(size: tuple[int, int], sizes: tuple[int, ...]):
    mask = np.random.default_rng(1).random(size) < 0.5
    bits = bytes(samples.packed_rgba(mask, sizes, (1, 2, 3, 200)))
    assert np.array_equal(alpha_of_bits(bits, size, "x"), mask * np.uint8(200))
    for cut in (0, 3, len(bits) // 2, len(bits) - 2):
        with pytest.raises(DataError, match="ends early"):
            alpha_of_bits(bits[:cut], size, "x")


def region(value: dict, size: tuple[int, int] = (7, 9), **more: object) -> dict:
    kind = next((key for key in value if key.endswith("labels")), "choices")
    told = {"id": "r", "type": kind, "original_height": size[0], "original_width": size[1], "image_rotation": 0}
    return {**told, "value": value, **more}


def task(*regions: object, image: str = "/data/upload/1/0123abcd-a.jpg", **more: object) -> dict:
    return {"id": 1, "data": {"image": image}, "annotations": [{"id": 1, "result": list(regions)}], **more}


SQUARE = {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "closed": True, "polygonlabels": ["a"]}


def test_soft_strokes_count_from_half_their_opacity(tmp_path: Path):
    brush = {"format": "rle", "rle": list(SOFT), "brushlabels": ["a"]}
    (shape,) = shapes_of(read(tmp_path, "a.json", [task(region(brush, (5, 11)))]), (5, 11))
    wanted = np.zeros((5, 11), bool)
    wanted[1:4, 3:9] = wanted[4, 0] = True  # 127 and 100 are less than half of 255
    assert np.array_equal(shape.mask, wanted)


def test_label_studio_takes_the_last_annotation_and_tells_the_rest(tmp_path: Path):
    other = {**SQUARE, "polygonlabels": ["b"]}
    made = task(region(SQUARE), predictions=[{"result": []}])
    made["annotations"] = [
        {"result": [region(other)], "created_at": "2026-05-02T00:00:00Z"},
        {"result": [region(SQUARE), region({"choices": ["good"]})], "created_at": "2026-05-01T00:00:00Z"},
        {"result": [], "created_at": "2026-05-03T00:00:00Z", "was_cancelled": True},
    ]
    bare = {"points": SQUARE["points"]}  # of a control without classes; its class is the next result of the same id
    both = [region(bare, id="p", type="polygon"), region({**bare, "labels": ["c"]}, id="p", type="labels")]
    tasks = [
        made,
        task(*both, image="s3://bucket/x/b.png"),
        task(image="/data/local-files/?d=x%20y/c.png"),
        task(image="d.png"),
    ]
    tasks[3]["annotations"] = []
    held = read(tmp_path, "a.json", tasks)
    assert list(held.pictures) == ["data/upload/1/0123abcd-a.jpg", "x/b.png", "x y/c.png"]
    assert held.pictures["data/upload/1/0123abcd-a.jpg"].also == ("a.jpg",)
    assert held.classes == ("b", "c") and held.objects == {"b": 1, "c": 1}
    assert list(held.pictures["x y/c.png"].shapes((7, 9))) == []
    assert held.skipped == {"further annotation of a task": 1, "task without an annotation": 1, "task's predictions": 1}


def test_label_studio_in_short_form(tmp_path: Path):
    shape = {**SQUARE, "original_width": 9, "original_height": 7}
    record = {"image": "https://host/pics/a.jpg?token=1", "id": 4, "annotator": 1, "annotation_id": 2, "lead_time": 3.1}
    later = {**record, "label": [shape], "created_at": "2026-05-02T00:00:00Z", "quality": "good"}
    earlier = {**record, "label": [], "created_at": "2026-05-01T00:00:00Z"}
    held = read(tmp_path, "a.json", [later, earlier])
    (found,) = held.pictures["pics/a.jpg"].shapes((7, 9))
    assert found.label == "a" and found.polygons[0].tolist() == [[0, 0], [4.5, 0], [4.5, 3.5], [0, 3.5]]


def png(pixels: np.ndarray, mode: str | None = None) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_a_bitmask_of_label_studio_is_black_on_nothing(tmp_path: Path):
    mask = np.arange(63).reshape(7, 9) % 3 == 0
    pixels = np.zeros((7, 9, 4), np.uint8)
    pixels[..., 3] = mask * 255
    value = {"imageDataURL": "data:image/png;base64," + png(pixels), "bitmasklabels": ["a"]}
    (shape,) = shapes_of(read(tmp_path, "a.json", [task(region(value))]), (7, 9))
    assert np.array_equal(shape.mask, mask)


def labelme(*shapes: dict, **more: object) -> dict:
    told = {"version": "5.5.0", "flags": {}, "imagePath": "..\\imgs\\a.jpg", "imageData": None}
    return {**told, "shapes": list(shapes), "imageHeight": 7, "imageWidth": 9, **more}


def drawn(kind: str, points: list, label: str = "a", **more: object) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def test_shapes_of_labelme(tmp_path: Path):
    mask = np.array([[1, 0, 1], [1, 1, 0]], bool)
    shapes = [
        drawn("rectangle", [[8, 5], [2, 1]], "box"),
        drawn("circle", [[4.5, 3.5], [4.5, 6]], "disc"),
        drawn("mask", [[3, 2], [5, 3]], "stain", mask=png(mask)),
        drawn("polygon", [[0, 0], [2, 0], [2, 2], [0, 2]], "pieces", group_id=3),
        drawn("linestrip", [[0, 0], [5, 5]]),
        drawn("point", [[1, 1]]),
        drawn("polygon", [[0, 0], [1, 1]]),
        drawn("rectangle", [[5, 5], [8, 7]], "pieces", group_id=3),
        drawn("mask", [[0, 5], [2, 6]], "pieces", group_id=3, mask=png(mask)),
    ]
    held = read(tmp_path, "a.json", labelme(*shapes))
    assert list(held.pictures) == ["imgs/a.jpg"] and held.classes == ("box", "disc", "pieces", "stain")
    assert held.skipped == {"linestrip": 1, "point": 1, "polygon of fewer than 3 points": 1}
    box, disc, stain, pieces = (painted(shape, (7, 9)) for shape in held.pictures["imgs/a.jpg"].shapes((7, 9)))
    y, x = np.mgrid[:7, :9] + 0.5
    assert np.array_equal(box, (x > 2) & (x < 8) & (y > 1) & (y < 5))
    assert np.array_equal(disc, (x - 4.5) ** 2 + (y - 3.5) ** 2 < 2.5**2)
    assert np.array_equal(stain[2:4, 3:6], mask) and stain.sum() == mask.sum()
    wanted = ((x < 2) & (y < 2)) | ((x > 5) & (x < 8) & (y > 5))
    wanted[5:7, 0:3] |= mask
    assert np.array_equal(pieces, wanted)  # three shapes of one group are one object


def test_masks_in_any_kind_of_png(tmp_path: Path):
    mask = np.arange(63).reshape(7, 9) % 2 == 0
    corners = [[0, 0], [8, 6]]
    for pixels, mode in ((mask, None), (mask * np.uint8(255), None), (mask * np.uint8(3), "P")):
        held = read(tmp_path, "a.json", labelme(drawn("mask", corners, mask=png(pixels, mode)), flags={"again": True}))
        (shape,) = held.pictures["imgs/a.jpg"].shapes((7, 9))
        assert np.array_equal(shape.mask, mask)


def test_an_empty_text_of_yolo_is_a_picture_without_objects(tmp_path: Path):
    held = read(tmp_path, "a.txt", "")
    assert list(held.pictures["a"].shapes((7, 9))) == [] and held.objects == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/data/local-files/?d=a%20b/c.jpg", "a b/c.jpg"),
        ("/data/local-files?d=/c.jpg", "c.jpg"),
        ("https://host:8080/x/c.jpg?a=1#b", "x/c.jpg"),
        ("s3://bucket/x/c.jpg", "x/c.jpg"),
        ("C:\\pictures\\c#1.jpg", "pictures/c#1.jpg"),
        ("../../c?.jpg", "c?.jpg"),
    ],
)
def test_addresses_of_pictures(text: str, name: str):
    assert address_name(text, "x") == name


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE annotations [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<annotations><version>&b;</version></annotations>"
)
OUTSIDE = '<!DOCTYPE annotations SYSTEM "file:///etc/passwd"><annotations><version>1</version></annotations>'
BIG = png(np.zeros((1, 1), bool))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


HEADER = struct.pack(">IIBBBBB", 8000, 8000, 1, 0, 0, 0, 0)
HUGE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HEADER) + chunk(b"IDAT", zlib.compress(b""))).decode()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.xml", BOMB, "document type"),
        ("a.xml", OUTSIDE, "document type"),
        ("a.xml", "<annotations><version>" + "<a>" * 70, "nested more than 64"),
        ("a.xml", "<annotations><version>1.1</version>", "is damaged"),
        ("a.xml", cvat(images='<track id="0"><box/></track>'), "holds tracks"),
        ("a.xml", cvat(images='<image id="0" name="a.png" width="9"/>'), "height"),
        ("a.xml", cvat(images='<image id="0" name="a.png" width="9" height="1e9"/>'), "no whole number"),
        ("a.xml", cvat(images='<image id="0" name="../" width="9" height="7"/>'), "no path of a picture"),
        ("a.xml", cvat(images='<image id="0" name="a.png" width="9" height="7"/>' * 2), "stands twice"),
        ("a.xml", cvat('<polygon label="a" points="0,0;1,nan;2,2"/>'), "nan"),
        ("a.xml", cvat('<polygon label="a" points="0,0;1,1,1;2,2"/>'), "expected points"),
        ("a.xml", cvat('<polygon label=" " points="0,0;1,1;2,2"/>'), "name of a class"),
        ("a.xml", cvat('<polygon label="a" points="0,0;9e9,1;2,2"/>'), "beyond all pictures"),
        ("a.xml", cvat('<ellipse label="a" cx="1" cy="1" rx="inf" ry="1"/>'), "rx: 'inf' is no number"),
        ("a.xml", cvat('<mask label="a" rle="0,4" left="0" top="0" width="100" height="1"/>'), "width: '100'"),
        ("a.xml", cvat('<mask label="a" rle="5,-1" left="0" top="0" width="2" height="2"/>'), "add up"),
        ("a.xml", cvat('<mask label="a" rle="" left="0" top="0" width="2" height="2"/>'), "rle ''"),
        ("a.xml", cvat(f'<mask label="a" rle="{"9" * 30}" left="0" top="0" width="2" height="2"/>'), "whole numbers"),
        ("a.json", b'{"shapes": [], "flags": \xff}', "is no JSON"),
        ("a.json", '{"shapes": [], "shapes": [], "version": 1}', "stands twice"),
        ("a.json", labelme() | {"shapes": {}}, "expected a list"),
        ("a.json", labelme({"label": 3, "points": []}), "name of a class"),
        ("a.json", labelme(drawn("spline", [[0, 0]])), "unknown shape_type 'spline'"),
        ("a.json", labelme(drawn("polygon", [[0, 0], [1, "1"], [2, 2]])), "expected points"),
        ("a.json", labelme(drawn("polygon", [[0, 0], [1], [2, 2]])), "expected points"),
        ("a.json", labelme(drawn("mask", [[0, 0], [8, 6]], mask=HUGE)), "8000x8000"),
        ("a.json", labelme(drawn("mask", [[0, 0], [8, 6]], mask="%%%")), "no PNG in base64"),
        ("a.json", labelme(drawn("mask", [[0, 0], [8, 6]], mask=BIG)), "1x1 for a box of 9x7"),
        ("a.json", labelme(drawn("mask", [[100000, 0], [100000, 0]], mask=BIG)), "leaves the picture"),
        ("a.json", labelme(imageHeight=10**6), "no whole number"),
        ("a.json", [task(region(SQUARE)), task(region(SQUARE))], "has two tasks"),
        ("a.json", [task(region(SQUARE, image_rotation=90))], "turned picture"),
        ("a.json", [task(region({**SQUARE, "polygonlabels": "a"}))], "expected a list"),
        ("a.json", [task(region(SQUARE), image="data:image/png;base64,AA.png")], "found none"),
        ("a.json", [task(region(SQUARE), region(SQUARE, (8, 9)))], "several sizes"),
        ("a.json", [task(region({"rle": [1, 2, 3], "brushlabels": ["a"]}))], "ends early"),
        ("a.json", [task(region({"rle": [255] * 40, "brushlabels": ["a"]}))], "for 9x7 pixels"),
        ("a.json", [task(region({"rle": [1, 256], "brushlabels": ["a"]}))], "from 0 to 255"),
        ("a.json", [task(region({"x": 1, "y": 1, "width": None, "height": 2, "labels": ["a"]}))], "width: None"),
        ("a.txt", "0 0 0 1 0 1 1\n1 0.5 0.5 0.2 0.2\n", "line 2: is a box"),
        ("a.txt", "0 0 0 1 0 1 1\n0 0 0 1 0 1 1 0.9\n", "line 2: has 7 numbers"),
        ("a.txt", "0 0 0 1 0 1 1\n0 0 0 640 0 1 1\n", "640 is no share"),
        ("a.txt", "0 0 0 1 0 1 1\n0 0 0 nan 0 1 1\n", "nan is no share"),
        ("a.txt", "0 0 0 1 0 1 1\n-1 0 0 1 0 1 1\n", "class '-1'"),
        ("a.txt", "0 0 0 1 0 1 1\ncar 0 0 1 0 1 1\n", "line 2: 'car 0 0"),
    ],
)  # fmt: skip
def test_what_nobody_meant_ends_in_one_line(tmp_path: Path, name: str, content: object, told: str):
    with pytest.raises(DataError) as caught:
        held = read(tmp_path, name, content)
        for picture in held.pictures.values():
            for shape in picture.shapes((7, 9)):
                painted(shape, (7, 9))
    assert told in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
