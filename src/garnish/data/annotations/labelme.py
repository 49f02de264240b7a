"""LabelMe: one JSON a picture, with polygons, rectangles, circles and masks.

The format: what labelme 3 to 7 write (github.com/wkentaro/labelme); X-AnyLabeling writes the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.data.annotation_parts.outlines import ellipse, rectangle
from garnish.data.annotation_parts.picture_names import picture_name
from garnish.data.annotation_parts.png_mask import mask_of_png
from garnish.data.annotation_parts.stated_values import (
    parsed_json,
    read_annotation_file,
    stated_class,
    stated_list,
    stated_mapping,
    stated_points,
    stated_size,
)
from garnish.data.annotations.annotation_format import AnnotatedPicture, AnnotationFormat, Annotations
from garnish.data.annotations.filling import fill_polygons
from garnish.data.annotations.shape import Shape
from garnish.errors import DataError, shown

#: Shapes with an area → the number of points that they have; None: three or more.
_AREAS = {"polygon": None, "oriented_rectangle": 4, "rotation": 4, "rectangle": 2, "circle": 2, "mask": 2}
_NO_AREAS = ("point", "points", "line", "linestrip")


@final
class LabelMe(AnnotationFormat):
    """Later objects lie above; shapes of one class and ``group_id`` are one object, at the place of the first."""

    kind: ClassVar[str] = "labelme"
    tool: ClassVar[str] = "LabelMe"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    one_a_picture: ClassVar[bool] = True

    @classmethod
    def recognised(cls, file: Path, head: bytes) -> bool:
        """Whether it has ``shapes``, and ``flags``, ``imagePath`` or ``version`` beside them."""
        beside = (b'"flags"', b'"imagePath"', b'"version"', b'"shape_type"')
        return (
            head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and b'"shapes"' in head and any(b in head for b in beside)
        )

    @classmethod
    def read(cls, file: Path) -> Annotations:
        """One picture; ``imageData`` is not looked at. Classes are those of the file, sorted by name."""
        given = stated_mapping(parsed_json(read_annotation_file(file, cls.tool), file, cls.tool), str(file))
        listed = stated_list(given.get("shapes"), f"{file}: shapes")
        size = None
        if given.get("imageHeight") is not None and given.get("imageWidth") is not None:
            size = stated_size(given["imageHeight"], given["imageWidth"], f"{file}: image")
        path = given.get("imagePath")
        name = picture_name(path, f"{file}: imagePath") if path else file.stem
        kept: dict[object, list[tuple[Mapping[str, object], str, str]]] = {}
        skipped: list[str] = []
        for place, entry in enumerate(listed):
            where = f"{file}: shapes[{place}]"
            shape = stated_mapping(entry, where)
            label = stated_class(shape.get("label"), f"{where}: label")
            kind = shape.get("shape_type") or "polygon"
            if kind in _NO_AREAS:
                skipped.append(str(kind))
            elif not isinstance(kind, str) or kind not in _AREAS:
                raise DataError(f"{where}: unknown shape_type {shown(kind)}; draw {shown(label)} as a polygon")
            elif len(stated_list(shape.get("points"), f"{where}: points")) < (_AREAS[kind] or 3):
                skipped.append(f"{kind} of fewer than {_AREAS[kind] or 3} points")
            else:
                group = shape.get("group_id")
                own = ("shape", place) if group is None else (label, shown(group))
                kept.setdefault(own, []).append((shape, label, where))
        objects = Counter(parts[0][1] for parts in kept.values())
        picture = AnnotatedPicture(size, partial(_shapes, list(kept.values())))
        return Annotations(tuple(sorted(objects)), {name: picture}, skipped=Counter(skipped), objects=dict(objects))


def _shapes(
    groups: Sequence[Sequence[tuple[Mapping[str, object], str, str]]], size: tuple[int, int]
) -> Iterator[Shape]:
    """The objects of a picture of some (H, W)."""
    for parts in groups:
        label = parts[0][1]
        outlines = [_outline(shape, where) for shape, _, where in parts if shape.get("shape_type") != "mask"]
        masks = [_mask(shape, where, size) for shape, _, where in parts if shape.get("shape_type") == "mask"]
        if not masks:
            yield Shape(label, tuple(outlines))
            continue
        if outlines:
            masks.append(_filled(outlines, size, parts[0][2]))
        mask, corner = masks[0] if len(masks) == 1 else _union(masks)
        yield Shape(label, mask=mask, corner=corner)


def _filled(outlines: Sequence[np.ndarray], size: tuple[int, int], where: str) -> tuple[np.ndarray, tuple[int, int]]:
    """The outlines of a group that holds masks too, as one mask with its (top, left)."""
    try:
        return fill_polygons(outlines, size)
    except ValueError as error:
        raise DataError(f"{where}: {error}; correct or remove its group") from None


def _outline(shape: Mapping[str, object], where: str) -> np.ndarray:
    kind = shape.get("shape_type") or "polygon"
    found = stated_points(shape["points"], f"{where}: points")
    if kind == "circle":
        radius = float(np.hypot(*(found[1] - found[0])))
        return ellipse((float(found[0, 0]), float(found[0, 1])), (radius, radius))
    if kind == "rectangle":
        (left, top), (right, bottom) = found[:2].tolist()
        return rectangle((left, top), (right - left, bottom - top))
    return found


def _mask(shape: Mapping[str, object], where: str, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """A mask and its (top, left): the first of two points is its upper left pixel, the second its lower right one."""
    corners = stated_points(shape["points"], f"{where}: points")
    (left, top), (right, bottom) = corners[:2].astype(int).tolist()
    mask = mask_of_png(shape.get("mask"), f"{where}: mask", size)
    box = (bottom - top + 1, right - left + 1)
    if min(left, top) < 0 or right >= size[1] or bottom >= size[0]:
        raise DataError(f"{where}: its mask leaves the picture of {size[1]}x{size[0]}; draw it again")
    if mask.shape != box:
        raise DataError(
            f"{where}: a mask of {mask.shape[1]}x{mask.shape[0]} for a box of {box[1]}x{box[0]} pixels; draw it again"
        )
    return mask, (top, left)


def _union(masks: Sequence[tuple[np.ndarray, tuple[int, int]]]) -> tuple[np.ndarray, tuple[int, int]]:
    """One mask of several, each with its (top, left)."""
    top, left = (min(corner[k] for _, corner in masks) for k in (0, 1))
    low, right = (max(corner[k] + mask.shape[k] for mask, corner in masks) for k in (0, 1))
    whole = np.zeros((low - top, right - left), bool)
    for mask, (y, x) in masks:
        whole[y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]] |= mask
    return whole, (top, left)
