"""COCO's panoptic segments: one PNG of segment numbers a picture, and a JSON file that says what each segment is.

The format: cocodataset.org/#format-data ("Panoptic Segmentation").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from scipy import ndimage

from garnish.checking.plain_data import Json
from garnish.data.annotations.annotation_format import AnnotatedPicture, AnnotationFormat, Annotations
from garnish.data.annotations.coco_json import REMEDY, CocoLists, is_coco, is_crowd, json_whole, picture_id
from garnish.data.annotations.shape import Shape
from garnish.data.patterns import stays_below
from garnish.errors import DataError, shown
from garnish.files.label_files import read_array, refuse_lossy

#: Segment number → (category's id, ``iscrowd``).
_Segments = Mapping[int, tuple[Json, bool]]


@final
class CocoPanoptic(AnnotationFormat):
    """Segments by the numbers R + 256 G + 65536 B of a PNG; 0 is none.

    The PNGs lie in a folder with the stem of the JSON file, beside it or beside its folder, or beside it themselves.
    """

    kind: ClassVar[str] = "coco_panoptic"
    tool: ClassVar[str] = "COCO panoptic"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    @classmethod
    def recognised(cls, file: Path, head: bytes) -> bool:
        """Whether it has ``images``, ``annotations`` and ``categories``, and ``segments_info``."""
        return is_coco(file, head, panoptic=True)

    @classmethod
    def read(cls, file: Path) -> Annotations:
        """What each segment is; PNGs are opened when their picture is asked for."""
        lists = CocoLists(file)
        found: dict[str, tuple[str, _Segments, str]] = {}
        for place, entry in lists.annotations():
            picture, name, segments = _annotation(entry, place)
            if picture in found:
                raise DataError(f"{place}: picture {picture} has an annotation already; keep one of them")
            found[picture] = (name, segments, place)
        objects: Counter[str] = Counter()
        pictures: dict[str, AnnotatedPicture] = {}
        folder, strangers = _folder(file), 0
        for picture, (name, segments, place) in found.items():
            if picture not in lists.names:
                strangers += 1
                continue
            classes = {number: lists.category(category, place) for number, (category, _) in segments.items()}
            objects.update(classes.values())
            crowds = frozenset(number for number, (_, crowd) in segments.items() if crowd)
            png = folder / name
            read = partial(_shapes, png, classes, crowds)
            pictures[lists.names[picture]] = AnnotatedPicture(lists.sizes[picture], read, (png,))
        told = {"annotation of a picture that is not under `images`": strangers} if strangers else {}
        return Annotations(lists.classes(), pictures, "later", told, objects)


def _annotation(entry: Json, place: str) -> tuple[str, str, _Segments]:
    """The picture's id of an annotation, the name of its PNG, and its segments."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{place}: expected a mapping, got {shown(entry)}; {REMEDY}")
    name, listed = entry.get("file_name"), entry.get("segments_info")
    if not isinstance(name, str) or not name or not stays_below(name):
        raise DataError(f"{place}: file_name is {shown(name)}, expected the name of a PNG without '..'; {REMEDY}")
    if not isinstance(listed, list):
        raise DataError(f"{place}: segments_info is {shown(listed)}, expected a list; {REMEDY}")
    segments: dict[int, tuple[Json, bool]] = {}
    for each in listed:
        if not isinstance(each, Mapping):
            raise DataError(f"{place}: a segment is {shown(each)}, expected a mapping; {REMEDY}")
        number = json_whole(each.get("id"), f"{place}: id of a segment")
        if not 0 < number < 2**24:
            raise DataError(f"{place}: id {number} of a segment, expected 1 to {2**24 - 1}; {REMEDY}")
        if number in segments:
            raise DataError(f"{place}: id {number} is that of two segments; {REMEDY}")
        segments[number] = (each.get("category_id"), is_crowd(each, place))
    return picture_id(entry.get("image_id"), f"{place}: image_id"), name, segments


def _folder(file: Path) -> Path:
    """Where the PNGs of a JSON file lie."""
    places = (file.parent / file.stem, file.parent.parent / file.stem)
    return next((place for place in places if place.is_dir()), file.parent)


def _shapes(png: Path, classes: Mapping[int, str], crowds: frozenset[int], size: tuple[int, int]) -> Iterator[Shape]:
    """The segments of a picture of (H, W)."""
    refuse_lossy(png)
    raw = read_array(png)
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[2] != 3):
        raise DataError(f"{png}: {raw.dtype} of shape {raw.shape}, expected red, green and blue of 8 bits; {REMEDY}")
    if raw.shape[:2] != size:
        told = f"{raw.shape[1]}x{raw.shape[0]}, but its picture is {size[1]}x{size[0]}"
        raise DataError(f"{png}: {told}; {REMEDY}, with the pictures' own size")
    numbers = raw.astype(np.int32) if raw.ndim == 2 else raw.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    found, places = np.unique(numbers, return_inverse=True)
    unknown = [int(number) for number in found if number and int(number) not in classes]
    if unknown:
        count = int((numbers == unknown[0]).sum())
        raise DataError(
            f"{png}: {count} pixels of segment {unknown[0]}, which segments_info does not list ({len(unknown)} such"
            f" segments); {REMEDY}"
        )
    ranks = places.reshape(size).astype(np.int32) + 1
    for rank, (number, box) in enumerate(zip(found.tolist(), ndimage.find_objects(ranks), strict=True), 1):
        if number:
            mask, corner = ranks[box] == rank, (box[0].start, box[1].start)
            yield Shape(classes[number], mask=mask, corner=corner, crowd=number in crowds)
