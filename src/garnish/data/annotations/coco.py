"""COCO's instances: polygons and run lengths of all objects of many pictures in one JSON file.

The format: cocodataset.org/#format-data ("Object Detection").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.annotations.annotation_format import AnnotatedPicture, AnnotationFormat, Annotations
from garnish.data.annotations.coco_json import REMEDY, CocoLists, is_coco, is_crowd, picture_id
from garnish.data.annotations.coco_runs import mask_of_runs, unpacked_counts
from garnish.data.annotations.shape import Shape
from garnish.errors import DataError, shown


@final
class CocoInstances(AnnotationFormat):
    """Objects with ``segmentation``: polygons, compressed and uncompressed run lengths; smaller ones lie on top."""

    kind: ClassVar[str] = "coco"
    tool: ClassVar[str] = "COCO instances"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    @classmethod
    def recognised(cls, file: Path, head: bytes) -> bool:
        """Whether it has ``images``, ``annotations`` and ``categories``, and no ``segments_info``."""
        return is_coco(file, head, panoptic=False)

    @classmethod
    def read(cls, file: Path) -> Annotations:
        """All objects; numbers of polygons and run lengths are kept in arrays, masks are made when asked for."""
        lists = CocoLists(file)
        held: dict[str, list[_Object]] = {}
        skipped: Counter[str] = Counter()
        for place, entry in lists.annotations():
            picture, found = _object(entry, place, skipped)
            if found is not None:
                held.setdefault(picture, []).append(found)
        objects: Counter[str] = Counter()
        for picture, those in held.items():
            if picture not in lists.names:
                skipped["object of a picture that is not under `images`"] += len(those)
                continue
            objects.update(lists.category(each.category, each.place) for each in those)
        pictures = {
            name: AnnotatedPicture(lists.sizes[key], partial(_shapes, held.get(key, ()), lists.categories))
            for key, name in lists.names.items()
        }
        return Annotations(lists.classes(), pictures, "smaller", +skipped, objects)


@final
@dataclass(frozen=True, eq=False, slots=True)
class _Object:
    """One annotation: its polygons, or its run lengths and their size.

    Attributes:
        place: file and entry, for messages.
        category: id, not yet looked up, since categories may stand behind annotations.
        crowd: ``iscrowd``.
        polygons: each (K, 2) float64.
        counts: compressed, or (n,) int64.
        size: (H, W) of the run lengths.
    """

    place: str
    category: Json
    crowd: bool
    polygons: tuple[np.ndarray, ...] = ()
    counts: bytes | np.ndarray | None = None
    size: tuple[int, int] = (0, 0)


def _object(entry: Json, place: str, skipped: Counter[str]) -> tuple[str, _Object | None]:
    """The picture's id of an annotation, and the annotation; None: it has no area."""
    if not isinstance(entry, Mapping):
        raise DataError(f"{place}: expected a mapping, got {shown(entry)}; {REMEDY}")
    picture = picture_id(entry.get("image_id"), f"{place}: image_id")
    crowd, category, area = is_crowd(entry, place), entry.get("category_id"), entry.get("segmentation")
    if area is None or area == []:
        skipped["box" if entry.get("bbox") else "object without an outline"] += 1
        return picture, None
    if isinstance(area, Mapping):
        counts, size = _runs(area, place)
        return picture, _Object(place, category, crowd, (), counts, size)
    if not isinstance(area, list):
        raise DataError(f"{place}: segmentation is {shown(area)}, expected polygons or run lengths; {REMEDY}")
    polygons = [_polygon(points, place) for points in area]
    kept = tuple(points for points in polygons if len(points) > 2)
    if len(kept) < len(polygons):
        skipped["polygon of fewer than 3 points"] += len(polygons) - len(kept)
    return picture, _Object(place, category, crowd, kept) if kept else None


def _polygon(points: Json, place: str) -> np.ndarray:
    """(K, 2) float64 of a flat list of x and y."""
    try:
        if not isinstance(points, list) or len(points) % 2 or isinstance(points[0], str):
            raise ValueError
        flat = np.array(points)
        if flat.ndim != 1 or flat.dtype.kind not in "iuf":
            raise ValueError
        return flat.astype(np.float64).reshape(-1, 2)
    except (ValueError, TypeError, IndexError, OverflowError):
        told = "expected x and y in turn: [[x, y, x, y, …], …]"
        raise DataError(f"{place}: a polygon is {shown(points)}; {told}; {REMEDY}") from None


def _runs(area: Mapping[str, Json], place: str) -> tuple[bytes | np.ndarray, tuple[int, int]]:
    """Run lengths, compressed or (n,) int64, and their (H, W)."""
    size, counts = area.get("size"), area.get("counts")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**31 for side in size)
    ):
        raise DataError(f"{place}: size of the run lengths is {shown(size)}, expected [height, width]; {REMEDY}")
    if isinstance(counts, str) and counts.isascii():
        return counts.encode(), (size[0], size[1])
    if isinstance(counts, list) and all(type(run) is int and -(2**62) < run < 2**62 for run in counts):
        return np.array(counts, np.int64), (size[0], size[1])
    raise DataError(f"{place}: counts are {shown(counts)}, expected run lengths as text or whole numbers; {REMEDY}")


def _shapes(held: Sequence[_Object], categories: Mapping[int, str], size: tuple[int, int]) -> Iterator[Shape]:
    """The objects of a picture of (H, W)."""
    for each in held:
        label = categories[int(each.category)]
        if each.counts is None:
            yield Shape(label, each.polygons, crowd=each.crowd)
            continue
        if each.size != size:
            told = f"run lengths of {each.size[1]}x{each.size[0]} in a picture of {size[1]}x{size[0]}"
            raise DataError(f"{each.place}: {told}; {REMEDY}, with the pictures' own size")
        try:
            counts = unpacked_counts(each.counts) if isinstance(each.counts, bytes) else each.counts
            mask, left = mask_of_runs(counts, size)
        except ValueError as error:
            raise DataError(f"{each.place}: {error}; {REMEDY}") from None
        yield Shape(label, mask=mask, corner=(0, left), crowd=each.crowd)
