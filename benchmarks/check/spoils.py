"""What is spoiled, how strongly, and which check is meant to tell it.

The strengths were fixed before the first measurement; thresholds of checks are tuned on other seeds than those that
are reported (``measure.py``). One row a fault that data sets have; a row spoils 5 of 50 pictures or labels, rows with
``whole`` all of them. A row is used in every set that has its kind of label.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from written import Written

Place = tuple[str, str]
Draw = np.random.Generator

SHIFT = 4  # pixels of the label file
JPEG = 75  # Pillow's quality
SPECK_EVERY = 1_500  # pixels for each speck of 1 to 2 pixels' side
SENTINEL_SHARE = 0.1  # of the pixels
DARK = 0.04  # of the levels
SHORT = 0.8  # length of normals
COPY_QUALITY, COPY_CROP = 80, 0.98  # a near-copy: JPEG of a slightly cropped picture, at the old size
NEXT_ZOOM, NEXT_SHIFT = 1.04, 0.02  # the next frame: nearer, and to the side, in parts of the picture

REGIONS = ("ids", "mask")
CLASSES = (*REGIONS, "lines")
ALL = (*CLASSES, "depth", "normals")


@dataclass(frozen=True)
class Spoil:
    """One row.

    Attributes:
        name: of the row.
        what: in words, with the strength.
        kinds: of labels it is done to; empty: to pictures.
        meant: names of checks that should tell the spoiled ones.
        do: spoils the chosen ones (of one task), gives the names that should be told, and as "of:NAME" those that a
            copy was taken of.
        whole: every label of the task is spoiled, and one finding about the task is wanted.
    """

    name: str
    what: str
    kinds: tuple[str, ...]
    meant: tuple[str, ...]
    do: Callable[[Written, str, Sequence[Place], Draw], list[str]]
    whole: bool = False


def each(change: Callable[[np.ndarray, Written, str, Draw], np.ndarray]) -> Callable[..., list[str]]:
    """A spoil that changes the numbers of each chosen label by itself."""

    def do(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
        for place in chosen:
            at.write(task, place, change(at.read(task, place), at, task, draw))
        return [name for _, name in chosen]

    return do


def shift(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Moved by SHIFT pixels in one of eight directions; the rim is repeated."""
    dy, dx = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x][draw.integers(8)]
    return moved(values, SHIFT * dy, SHIFT * dx)


def moved(values: np.ndarray, dy: int, dx: int) -> np.ndarray:
    rows = (np.arange(values.shape[0]) - dy).clip(0, values.shape[0] - 1)
    columns = (np.arange(values.shape[1]) - dx).clip(0, values.shape[1] - 1)
    return values[rows][:, columns]


def all_shift(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
    """Every label in one and the same direction."""
    dy, dx = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x][draw.integers(8)]
    for place in chosen:
        at.write(task, place, moved(at.read(task, place), SHIFT * dy, SHIFT * dx))
    return [name for _, name in chosen]


def mirror(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Left and right changed; normals keep their numbers, as a tool that knows nothing of them would."""
    return values[:, ::-1].copy()


def other(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
    """The label of another picture, drawn among all; resized by nearest neighbour where pictures differ in size."""
    taken = {}
    for place in chosen:
        others = [p for p in at.pictures if p != place]
        taken[place] = at.read(task, others[draw.integers(len(others))])
    for place, values in taken.items():
        height, width = at.read(task, place).shape[:2]
        rows = np.arange(height) * values.shape[0] // height
        at.write(task, place, values[rows][:, np.arange(width) * values.shape[1] // width])
    return [name for _, name in chosen]


def jpeg(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Saved as JPEG once, then as PNG."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=JPEG)
    return np.array(Image.open(stream))


def bilinear(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Halved and doubled by bilinear interpolation."""
    picture = Image.fromarray(values)
    half = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.BILINEAR)
    return np.array(half.resize(picture.size, Image.Resampling.BILINEAR))


def constant(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """The number (or colour) of one pixel that has a label, everywhere."""
    flat = values.reshape(-1, *values.shape[2:])
    known = flat != none_of(at, task)
    known = known.any(-1) if known.ndim == 2 else known
    return np.broadcast_to(flat[known][draw.integers(known.sum())], values.shape).astype(values.dtype).copy()


def empty(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """No label anywhere: the id of none; 0 for depth and normals; no foreground for masks."""
    return np.full_like(values, none_of(at, task))


def none_of(at: Written, task: str) -> int:
    return at.tasks[task].none if at.tasks[task].kind == "ids" else 0


def specks(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Specks of 1 to 2 pixels' side of random other classes, one for every SPECK_EVERY pixels."""
    height, width = values.shape
    label = at.tasks[task]
    for _ in range(height * width // SPECK_EVERY):
        y, x, side = draw.integers(height), draw.integers(width), draw.integers(1, 3)
        taken = draw.integers(label.classes) if label.kind == "ids" else 255 - values[y, x]
        values[y : y + side, x : x + side] = taken
    return values


def beyond(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """One class of the label gets an id that is the number of classes too large."""
    count, none = at.tasks[task].classes, at.tasks[task].none
    found = [int(v) for v in np.unique(values) if v < count and v != none]
    values[values == found[draw.integers(len(found))]] = 2 * count + (2 * count == none)
    return values


def factor(by: float) -> Callable[[np.ndarray, Written, str, Draw], np.ndarray]:
    """Depth in another unit, rounded to whole numbers as files are."""

    def change(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
        return np.minimum(np.rint(values.astype(np.float64) * by), 65_535).astype(np.uint16)

    return change


def sentinel(number: int) -> Callable[[np.ndarray, Written, str, Draw], np.ndarray]:
    """SENTINEL_SHARE of the pixels, in one block, hold a number that stands for none."""

    def change(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
        height, width = (max(1, round(side * SENTINEL_SHARE**0.5)) for side in values.shape)
        y, x = draw.integers(values.shape[0] - height + 1), draw.integers(values.shape[1] - width + 1)
        values[y : y + height, x : x + width] = number
        return values

    return change


def turned(axis: int) -> Callable[[np.ndarray, Written, str, Draw], np.ndarray]:
    """Normals with one component negated; black stays black."""

    def change(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
        known = values.any(-1)
        values[known, axis] = 255 - values[known, axis]
        return values

    return change


def all_turned(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
    """The vertical component of every label."""
    return each(turned(1))(at, task, chosen, draw)


def swapped(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Both components within the picture exchanged."""
    return values[..., [1, 0, 2]]


def short(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Normals of length SHORT."""
    vectors = (values / 127.5 - 1) * SHORT
    return np.where(values.any(-1, keepdims=True), np.rint((vectors + 1) * 127.5), 0).astype(np.uint8)


def halved(values: np.ndarray, at: Written, task: str, draw: Draw) -> np.ndarray:
    """Every second row and column."""
    return values[::2, ::2].copy()


def truncated(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
    """The first half of the file's bytes."""
    for place in chosen:
        file = at.file(task, place)
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data[: len(data) // 2])
    return [name for _, name in chosen]


def exif(turn: int, orientation: int) -> Callable[..., list[str]]:
    """The picture is stored turned with an EXIF orientation that undoes it; the label is stored turned without one."""

    def do(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
        for place in chosen:
            pixels = np.rot90(at.read("images", place), turn).copy()
            facts = Image.Exif()
            facts[0x0112] = orientation
            file = at.file("images", place)
            file.unlink()
            Image.fromarray(pixels).save(file, exif=facts, compress_level=1)
            at.write(task, place, np.rot90(at.read(task, place), turn).copy())
        return [name for _, name in chosen]

    return do


def dark(values: np.ndarray) -> np.ndarray:
    """Levels times DARK."""
    return np.rint(values * DARK).astype(np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    """One grey."""
    return np.full_like(values, 114)


def pictures(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., list[str]]:
    """A spoil that changes pictures; labels stay."""

    def do(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
        for place in chosen:
            at.write("images", place, change(at.read("images", place)))
        return [name for _, name in chosen]

    return do


def near_copy(pixels: np.ndarray) -> np.ndarray:
    """Slightly cropped, back at the old size, through a JPEG."""
    picture = Image.fromarray(pixels)
    box = (0, 0, picture.width * COPY_CROP, picture.height * COPY_CROP)
    stream = io.BytesIO()
    picture.resize(picture.size, Image.Resampling.BICUBIC, box=box).save(stream, "JPEG", quality=COPY_QUALITY)
    return np.array(Image.open(stream))


def copies(across: bool) -> Callable[..., list[str]]:
    """Chosen pictures become near-copies of pictures of their own split, or of another; labels are copied."""

    def do(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
        told = []
        for place in chosen:
            sources = [p for p in at.pictures if p not in chosen and (p[0] != place[0]) == across]
            source = sources[draw.integers(len(sources))]
            at.write("images", place, near_copy(at.read("images", source)))
            for other_task in at.tasks:
                at.write(other_task, place, at.read(other_task, source))
            told += [place[1], f"of:{source[1]}"]
        return told

    return do


def next_frames(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
    """Chosen pictures become what a camera sees a moment after pictures of another split, named by the next number."""
    told = []
    sources = [p for p in at.pictures if p[0] != chosen[0][0]]
    for place, number in zip(chosen, draw.choice(len(sources), len(chosen), replace=False), strict=True):
        source = sources[number]
        head = source[1].rstrip("0123456789")
        digits = source[1][len(head) :]
        new = (place[0], f"{head}{int(digits) + 1:0{len(digits)}d}")
        for folder in ("images", *at.tasks):
            values = at.read(folder, source)
            at.file(folder, place).unlink()
            at.write(folder, new, nearer(values, smooth=folder == "images"))
        told += [new[1], f"of:{source[1]}"]
    return told


def nearer(values: np.ndarray, smooth: bool) -> np.ndarray:
    height, width = values.shape[:2]
    w, h = width / NEXT_ZOOM, height / NEXT_ZOOM
    left, top = (width - w) / 2 + NEXT_SHIFT * width * 0.5, (height - h) / 2
    if smooth:
        box = (left, top, left + w, top + h)
        return np.array(Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC, box=box))
    rows = (top + (np.arange(height) + 0.5) / NEXT_ZOOM).astype(int).clip(0, height - 1)
    return values[rows][:, (left + (np.arange(width) + 0.5) / NEXT_ZOOM).astype(int).clip(0, width - 1)]


def class_gone(at: Written, task: str, chosen: Sequence[Place], draw: Draw) -> list[str]:
    """The second largest class of the training split is painted over with the largest there."""
    counts = np.zeros(256, np.int64)
    for place in at.pictures:
        if place[0] == "train":
            counts += np.bincount(at.read(task, place).ravel(), minlength=256)
    counts[at.tasks[task].classes :] = 0
    if at.tasks[task].none < at.tasks[task].classes:
        counts[at.tasks[task].none] = 0
    largest, second = np.argsort(-counts)[:2]
    for place in at.pictures:
        if place[0] == "train":
            values = at.read(task, place)
            values[values == second] = largest
            at.write(task, place, values)
    return []


SPOILS = (
    Spoil("truncated", "half of the file's bytes are missing", ALL, ("reading",), truncated),
    Spoil("size", "label of half the size", ALL, ("reading",), each(halved)),
    Spoil("beyond", "one class has an id beyond the classes", ("ids",), ("reading",), each(beyond)),
    Spoil("jpeg", "ids were a JPEG of quality 75", REGIONS, ("lossy_ids",), each(jpeg)),
    Spoil("bilinear", "ids halved and doubled bilinearly", REGIONS, ("interpolated_ids",), each(bilinear)),
    Spoil("exif_180", "picture with EXIF orientation 3, label without", ALL, ("orientation",), exif(2, 3)),
    Spoil("exif_90", "picture with EXIF orientation 6, label without", ALL, ("reading",), exif(1, 6)),
    Spoil("constant", "one value everywhere", ("ids", "depth", "normals"), ("odd_labels",), each(constant)),
    Spoil("empty", "no label anywhere", ("ids", "depth", "normals"), ("empty_labels",), each(empty)),
    Spoil("specks", "a speck of 1 to 2 px for every 1,500 pixels", REGIONS, ("specks",), each(specks)),
    Spoil("class_gone", "a class is painted over in train", ("ids",), ("absent_classes",), class_gone, whole=True),
    Spoil("scale", "depth × 10", ("depth",), ("units",), each(factor(10))),
    Spoil("cm", "depth in cm, read as mm", ("depth",), ("units",), each(factor(0.1))),
    Spoil("m", "depth in whole m, read as mm", ("depth",), ("units",), each(factor(0.001))),
    Spoil("65535", "65535 at 10 % of the depths", ("depth",), ("sentinels",), each(sentinel(65_535))),
    Spoil("pile", "2000 at 10 % of the depths", ("depth",), ("sentinels",), each(sentinel(2_000))),
    Spoil("short", "normals of length 0.8", ("normals",), ("normal_length",), each(short)),
    Spoil("turned_z", "normals with z negated", ("normals",), ("normal_axes",), each(turned(2))),
    Spoil("turned_y", "normals with y negated", ("normals",), ("normals_depth", "normal_axes"), each(turned(1))),
    Spoil("swapped", "normals with x and y exchanged", ("normals",), ("normals_depth",), each(swapped)),
    Spoil("all_turned", "y negated in all normals", ("normals",), ("normals_depth",), all_turned, whole=True),
    Spoil("shift", "moved by 4 px", ALL, ("shift", "label_shift"), each(shift)),
    Spoil("all_shift", "all labels moved by the same 4 px", ALL, ("shift", "label_shift"), all_shift, whole=True),
    Spoil("mirror", "left and right changed", ALL, ("mirrored", "label_mirrored"), each(mirror)),
    Spoil("other", "label of another picture", ALL, ("other_picture", "contradiction"), other),
    Spoil("other_normals", "normals of another picture", ("normals",), ("normals_depth",), other),
    Spoil("copies", "near-copies of pictures of the same split", (), ("duplicates in a split",), copies(False)),
    Spoil("copies_across", "near-copies of pictures of another split", (), ("duplicates",), copies(True)),
    Spoil("frames", "next frames of pictures of another split", (), ("video",), next_frames),
    Spoil("dark", "levels × 0.04", (), ("exposure",), pictures(dark)),
    Spoil("grey", "one grey", (), ("exposure",), pictures(grey)),
)
