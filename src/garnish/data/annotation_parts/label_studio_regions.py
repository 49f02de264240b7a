"""Regions of a Label Studio annotation: which have an area and a class, and the object that each is.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from garnish.data.annotation_parts.brush_bits import alpha_of_bits
from garnish.data.annotation_parts.outlines import ellipse, rectangle
from garnish.data.annotation_parts.png_mask import mask_of_png
from garnish.data.annotation_parts.stated_values import (
    stated_class,
    stated_list,
    stated_mapping,
    stated_number,
    stated_points,
    stated_size,
)
from garnish.data.annotations.shape import Shape
from garnish.errors import DataError, shown

#: Keys of a region's classes.
_LABELS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels", "bitmasklabels", "labels")


@final
@dataclass(frozen=True, eq=False, slots=True)
class DrawnRegion:
    """A region with an area and a class.

    Attributes:
        label: its class.
        size: (H, W) of the picture as it was annotated.
        value: as the file has it, but for ``rle``.
        rle: bytes of a brush mask; None: it has none.
        where: file, task and region, for messages.
    """

    label: str
    size: tuple[int, int]
    value: Mapping[str, object]
    rle: bytes | None
    where: str


def regions_of(results: Sequence[object], where: str, skipped: list[str]) -> list[DrawnRegion]:
    """The regions among the results of an annotation.

    Args:
        results: as the file has them; other results (choices, text, relations, points) are added to ``skipped``.
        where: file and task, for messages.
        skipped: what is no area, in the singular.
    """
    found: list[DrawnRegion] = []
    bare: set[str] = set()
    classed: set[str] = set()
    for place, entry in enumerate(results, 1):
        at = f"{where}: region {place}"
        result = stated_mapping(entry, at)
        value = result.get("value")
        kind = result.get("type") if isinstance(result.get("type"), str) else "result"
        if not isinstance(value, Mapping) or not _has_area(value):
            skipped.append(f"{shown(kind, 30)[1:-1]}")
            continue
        labels = next((value[key] for key in _LABELS if value.get(key)), None)
        if labels is None:  # of a control without classes, whose class is another result of the same id
            bare.add(shown(result.get("id", place)))
            continue
        names = stated_list(labels, f"{at}: labels")
        if len(names) > 1:
            skipped.append("further class of a region")
        label = stated_class(names[0], f"{at}: labels")
        if stated_number(result.get("image_rotation") or 0, f"{at}: image_rotation"):
            raise DataError(
                f"{at}: was drawn on a turned picture, whose places differ; turn the picture back and redo it"
            )
        size = stated_size(result.get("original_height"), result.get("original_width"), at)
        if "points" in value and len(stated_list(value["points"], f"{at}: points")) < 3:
            skipped.append("polygon of fewer than 3 points")
            continue
        classed.add(shown(result.get("id", place)))
        rle = _bytes(value["rle"], at) if "rle" in value else None
        kept = {key: held for key, held in value.items() if key != "rle"}
        found.append(DrawnRegion(label, size, kept, rle, f"{at} ({shown(label)})"))
    skipped += ["region without a class"] * len(bare - classed)
    return found


def shape_of(region: DrawnRegion, size: tuple[int, int]) -> Shape:
    """The object that a region is, on a picture of some (H, W).

    A brush's pixel belongs to the object if it has at least half the opacity of its most opaque one, for strokes end
    softly. A rectangle is turned about the corner that is stored, an ellipse about its middle.
    """
    value, where = region.value, region.where

    def held(key: str, missing: float | None = None) -> float:
        return stated_number(value.get(key, missing), f"{where}: {key}")

    def share(key: str, side: int) -> float:
        """Pixels of percent; multiplied first, so that 50 % of 7 are 3.5."""
        return held(key) * size[side] / 100

    if region.rle is not None:
        alpha = alpha_of_bits(region.rle, region.size, where)
        return Shape(region.label, mask=alpha >= max(int(alpha.max()) / 2, 1))
    if "imageDataURL" in value:
        mask = mask_of_png(value["imageDataURL"], f"{where}: imageDataURL", region.size)
        if mask.shape != region.size:
            raise DataError(f"{where}: a mask of {mask.shape[1]}x{mask.shape[0]} for a picture of {size[1]}x{size[0]}")
        return Shape(region.label, mask=mask)
    if "points" in value:
        return Shape(region.label, (stated_points(value["points"], f"{where}: points", (size[1], size[0])) / 100,))
    corner, turn = (share("x", 1), share("y", 0)), held("rotation", 0)
    if "radiusX" in value:
        return Shape(region.label, (ellipse(corner, (share("radiusX", 1), share("radiusY", 0)), turn),))
    outline = rectangle(corner, (share("width", 1), share("height", 0)), turn, about=corner)
    return Shape(region.label, (outline,))


def _has_area(value: Mapping[str, object]) -> bool:
    """Whether a value is an outline, a mask, an ellipse or a rectangle, by its keys."""
    if value.get("closed") is False or "vectorlabels" in value or "keypointlabels" in value:
        return False
    return any(key in value for key in ("points", "rle", "imageDataURL", "radiusX")) or (
        "width" in value and "height" in value
    )


def _bytes(rle: object, where: str) -> bytes:
    """The numbers of ``rle`` as bytes."""
    try:
        return bytes(stated_list(rle, f"{where}: rle"))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: rle holds something else than numbers from 0 to 255; export the file again"
        ) from None
