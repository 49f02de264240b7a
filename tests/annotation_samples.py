"""Tiny sets of drawn pictures as annotation tools export them, with the ids that every pixel must have.

Three convex objects a picture: a road, a car on it, a tree. ``true_ids`` is a formula (a pixel is inside where its
centre lies on the inner side of every edge, in float64) and shares no code with the package. Every writer lays out a
folder as its tool does, and returns name of a picture → (H, W) ids: 0 nothing, then :data:`CLASSES` from 1.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

CLASSES = ("road", "car", "tree")
#: colours of nothing and of the classes, for pictures and for masks of colours
COLOURS = ((90, 140, 200), (128, 64, 128), (220, 20, 60), (20, 160, 30))
#: an odd (H, W)
SIZE = (61, 83)
Truth = dict[str, np.ndarray]


def outlines(number: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """(K, 2) x, y of each object of picture ``number``, convex, clockwise; later and smaller ones lie above."""
    height, width = size
    shift = (number * 0.6180339887) % 1
    road = np.array([(0.3, 0.45), (0.62, 0.45 + 0.05 * shift), (0.97, 0.96), (0.04, 0.93)]) * (width, height)
    angle, centre = 0.5 + shift, np.array([0.35 + 0.3 * shift, 0.7]) * (width, height)
    turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    car = centre + np.array([(-0.15, -0.08), (0.15, -0.08), (0.15, 0.08), (-0.15, 0.08)]) * width @ turn
    around = np.arange(8) * math.tau / 8
    middle = np.array([0.15 + 0.6 * shift, 0.25]) * (width, height)
    tree = middle + 0.11 * height * np.stack([np.cos(around), np.sin(around)], 1)
    return [np.round(outline, 2) for outline in (road, car, tree)]


def inside(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: whether a pixel's centre lies in a convex, clockwise outline."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    found = np.ones(size, bool)
    for (ax, ay), (bx, by) in zip(outline, np.roll(outline, -1, 0), strict=True):
        found &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
    return found


def true_ids(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) uint8 ids of picture ``number``."""
    ids = np.zeros(size, np.uint8)
    for label, outline in enumerate(outlines(number, size), 1):
        ids[inside(outline, size)] = label
    return ids


def write_picture(file: Path, number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Write picture ``number`` and return its ids; colours tell the classes, so that a model can learn them."""
    ids = true_ids(number, size)
    noise = np.random.default_rng(number).integers(-12, 13, (*size, 3))
    pixels = np.clip(np.array(COLOURS)[ids] + noise, 0, 255).astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=92)
    return ids


def names(count: int, first: int = 0) -> list[str]:
    """Names of pictures without suffix."""
    return [f"street_{number:03d}" for number in range(first, first + count)]


def write_labelme(folder: Path, count: int = 6, size: tuple[int, int] = SIZE) -> Truth:
    """LabelMe: one JSON beside each picture. The tree is a mask (as AI masks are), the others are polygons."""
    truth = {}
    for number, name in enumerate(names(count)):
        truth[name] = write_picture(folder / f"{name}.jpg", number, size)
        shapes = []
        for label, outline in zip(CLASSES, outlines(number, size), strict=True):
            shape = {"label": label, "points": outline.tolist(), "group_id": None, "description": ""}
            shape |= {"shape_type": "polygon", "flags": {}, "mask": None}
            if label == "tree":
                mask, (top, left) = cropped(inside(outline, size))
                corners = [[left, top], [left + mask.shape[1] - 1, top + mask.shape[0] - 1]]
                shape |= {"shape_type": "mask", "points": corners, "mask": png_text(mask)}
            shapes.append(shape)
        told = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
        told |= {"imageHeight": size[0], "imageWidth": size[1]}
        (folder / f"{name}.json").write_text(json.dumps(told, indent=2), "utf-8")
    return truth


def write_cvat(folder: Path, count: int = 6, size: tuple[int, int] = SIZE) -> Truth:
    """CVAT for images 1.1: ``images/`` and ``annotations.xml``; objects out of order, put right by their z_order."""
    truth, parts = {}, []
    for number, name in enumerate(names(count)):
        truth[name] = write_picture(folder / "images" / f"{name}.jpg", number, size)
        shapes = []
        for order, (label, outline) in enumerate(zip(CLASSES, outlines(number, size), strict=True)):
            common = f'label={quoteattr(label)} source="manual" occluded="0" z_order="{order}"'
            if label == "tree":
                mask, (top, left) = cropped(inside(outline, size))
                runs = ", ".join(map(str, zero_first_runs(mask)))
                place = f'left="{left}" top="{top}" width="{mask.shape[1]}" height="{mask.shape[0]}"'
                shapes.append(f'    <mask {common} rle="{runs}" {place}>\n    </mask>')
            else:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline)
                shapes.append(f'    <polygon {common} points="{points}">\n    </polygon>')
        head = f'  <image id="{number}" name="{name}.jpg" width="{size[1]}" height="{size[0]}">'
        parts.append("\n".join([head, *reversed(shapes), "  </image>"]))
    labels = "".join(
        f"<label><name>{label}</name><color>#{r:02x}{g:02x}{b:02x}</color><type>any</type><attributes></attributes></label>"
        for label, (r, g, b) in zip(CLASSES, COLOURS[1:], strict=True)
    )
    meta = f"<meta><task><id>7</id><mode>annotation</mode><labels>{labels}</labels></task></meta>"
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  {meta}\n'
    (folder / "annotations.xml").write_text(text + "\n".join(parts) + "\n</annotations>\n", "utf-8")
    return truth


def write_label_studio(folder: Path, count: int = 6, size: tuple[int, int] = SIZE) -> Truth:
    """Label Studio's JSON export, of pictures that lie in ``images/`` under the names they had before the upload."""
    truth, tasks = {}, []
    for number, name in enumerate(names(count)):
        truth[name] = write_picture(folder / "images" / f"{name}.jpg", number, size)
        regions = []
        for label, outline in zip(CLASSES, outlines(number, size), strict=True):
            kind, value = "polygonlabels", {"points": (outline * 100 / (size[1], size[0])).tolist(), "closed": True}
            if label == "tree":
                kind, value = "brushlabels", {"format": "rle", "rle": packed_rgba(inside(outline, size))}
            regions.append(
                {"id": f"{label}{number}", "type": kind, "from_name": "label", "to_name": "image", "origin": "manual"}
                | {"original_width": size[1], "original_height": size[0], "image_rotation": 0}
                | {"value": value | {kind: [label]}}
            )
        annotation = {"id": 100 + number, "completed_by": 1, "result": regions, "was_cancelled": False}
        file = f"/data/upload/1/{0x1F2E3D4C + number:08x}-{name}.jpg"
        tasks.append({"id": number, "annotations": [annotation], "predictions": [], "data": {"image": file}})
    (folder / "project-1-at-2026-05-04-10-20-deadbeef.json").write_text(json.dumps(tasks), "utf-8")
    return truth


def write_yolo(folder: Path, count: int = 6, size: tuple[int, int] = SIZE) -> Truth:
    """YOLO segmentation as tools export it: ``images/``, ``labels/``, ``classes.txt``."""
    truth = {}
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names(count)):
        truth[name] = write_picture(folder / "images" / f"{name}.jpg", number, size)
        (folder / "labels" / f"{name}.txt").write_text(yolo_lines(number, size), "utf-8")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", "utf-8")
    return truth


def write_ultralytics(folder: Path, count: int = 6, size: tuple[int, int] = SIZE, val: int = 2) -> Truth:
    """A set for Ultralytics: ``images/train``, ``images/val``, ``labels/…``, ``data.yaml``; ``val`` more pictures."""
    truth = {}
    for split, few, first in (("train", count, 0), ("val", val, count)):
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names(few, first), first):
            truth[name] = write_picture(folder / "images" / split / f"{name}.jpg", number, size)
            (folder / "labels" / split / f"{name}.txt").write_text(yolo_lines(number, size), "utf-8")
    listed = "".join(f"  {number}: {label}\n" for number, label in enumerate(CLASSES))
    text = f"path: {folder.name} # dataset root dir\ntrain: images/train\nval: images/val\n\nnames:\n{listed}"
    (folder / "data.yaml").write_text(text, "utf-8")
    return truth


def write_coco(folder: Path, count: int = 6, size: tuple[int, int] = SIZE) -> Truth:
    """COCO instances as CVAT exports them: ``images/default`` and ``annotations/instances_default.json``."""
    truth, images, objects = {}, [], []
    for number, name in enumerate(names(count)):
        truth[name] = write_picture(folder / "images" / "default" / f"{name}.jpg", number, size)
        images.append({"id": number + 1, "file_name": f"{name}.jpg", "width": size[1], "height": size[0]})
        for label, outline in enumerate(outlines(number, size), 1):
            (left, top), (right, bottom) = outline.min(0), outline.max(0)
            box = [left, top, right - left, bottom - top]
            objects.append(
                {"id": len(objects) + 1, "image_id": number + 1, "category_id": label, "iscrowd": 0, "bbox": box}
                | {"area": float(area(outline)), "segmentation": [outline.ravel().tolist()]}
            )
    told = {"licenses": [], "info": {}, "images": images, "annotations": objects}
    told["categories"] = [{"id": number, "name": label, "supercategory": ""} for number, label in enumerate(CLASSES, 1)]
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / "instances_default.json").write_text(json.dumps(told), "utf-8")
    return truth


def write_colour_masks(folder: Path, count: int = 6, size: tuple[int, int] = SIZE) -> Truth:
    """CVAT's "Segmentation mask 1.1": ``JPEGImages``, ``SegmentationClass`` in colours, ``labelmap.txt``."""
    truth = {}
    colours = ((0, 0, 0), *COLOURS[1:])
    (folder / "SegmentationClass").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names(count)):
        truth[name] = write_picture(folder / "JPEGImages" / f"{name}.jpg", number, size)
        painted = np.array(colours, np.uint8)[truth[name]]
        Image.fromarray(painted).save(folder / "SegmentationClass" / f"{name}.png")
    lines = (f"{label}:{r},{g},{b}::" for label, (r, g, b) in zip(("background", *CLASSES), colours, strict=True))
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n", "utf-8")
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("\n".join(truth) + "\n", "utf-8")
    return truth


def yolo_lines(number: int, size: tuple[int, int]) -> str:
    """Lines of class and outline, the sides of the picture being 1."""
    parts = []
    for label, outline in enumerate(outlines(number, size)):
        scaled = (outline / (size[1], size[0])).ravel()
        parts.append(" ".join([str(label), *(f"{value:.8f}" for value in scaled)]))
    return "\n".join(parts) + "\n"


def area(outline: np.ndarray) -> float:
    """Area of an outline, in pixels."""
    x, y = outline.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def cropped(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of a mask that holds all of it, and its (top, left)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], (int(rows[0]), int(columns[0]))


def png_text(mask: np.ndarray) -> str:
    """A mask as PNG of one bit, in base64."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def zero_first_runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs of a mask, row by row, the first of zeros (which may be none)."""
    runs, last = [0], False
    for value in mask.ravel().tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs


def packed_rgba(
    mask: np.ndarray, sizes: Sequence[int] = (3, 4, 8, 16), colour: Sequence[int] = (7, 7, 7, 255)
) -> list[int]:
    """A mask in Label Studio's bits: 32 of the count of numbers (RGBA), 5 of word size − 1, four times 4 of the bits of
    a run − 1; then runs: a bit for one repeated number, two that choose the bits of its length − 1, length, numbers.
    """
    numbers = (mask[..., None] * np.array(colour, np.uint8)).ravel().tolist()
    bits = [f"{len(numbers):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in sizes)]
    place = 0
    while place < len(numbers):
        run = 1
        while place + run < len(numbers) and numbers[place + run] == numbers[place] and run < 1 << sizes[3]:
            run += 1
        alike = run > 1
        if not alike:  # up to the next two that are equal
            while (
                place + run < len(numbers)
                and run < 1 << sizes[0]
                and (place + run + 1 == len(numbers) or numbers[place + run] != numbers[place + run + 1])
            ):
                run += 1
        choice = next(k for k, size in enumerate(sizes) if run <= 1 << size)
        held = numbers[place : place + 1] if alike else numbers[place : place + run]
        bits += [str(int(alike)), f"{choice:02b}", f"{run - 1:0{sizes[choice]}b}", *(f"{value:08b}" for value in held)]
        place += run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]
