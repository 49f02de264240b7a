"""CVAT for images 1.1: ``annotations.xml`` with polygons, boxes, ellipses and masks of all pictures of a task.

The format: docs.cvat.ai, "XML annotation format".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.data.annotation_parts.outlines import ellipse, rectangle
from garnish.data.annotation_parts.picture_names import picture_name
from garnish.data.annotation_parts.row_runs import mask_of_rows
from garnish.data.annotation_parts.stated_values import (
    MOST_BYTES,
    stated_class,
    stated_number,
    stated_points,
    stated_size,
    stated_whole,
)
from garnish.data.annotations.annotation_format import AnnotatedPicture, AnnotationFormat, Annotations
from garnish.data.annotations.shape import Shape
from garnish.errors import DataError, shown
from garnish.files.pictures import MAX_SIDE
from garnish.files.strict_xml import read_xml

_AREAS = ("polygon", "box", "ellipse", "mask")
_NO_AREAS = ("polyline", "points", "cuboid", "skeleton", "tag")
#: Types of labels that no area can have.
_TYPES = ("polyline", "points", "cuboid", "skeleton", "tag")
_REMEDY = 'export the task from CVAT again as "CVAT for images 1.1"'


@final
class CvatImages(AnnotationFormat):
    """Objects lie above others by their ``z_order``, then by their order in the file."""

    kind: ClassVar[str] = "cvat"
    tool: ClassVar[str] = "CVAT for images 1.1"
    suffixes: ClassVar[tuple[str, ...]] = (".xml",)

    @classmethod
    def recognised(cls, file: Path, head: bytes) -> bool:
        """Whether its outermost tag is ``annotations`` and a version, an image or a track follows."""
        return b"<annotations>" in head and any(tag in head for tag in (b"<version>", b"<image ", b"<track "))

    @classmethod
    def read(cls, file: Path) -> Annotations:
        """Classes in the order of the task's labels, those that can have no area left out."""
        seen = _Seen(file)
        read_xml(file, MOST_BYTES, _REMEDY, seen.begin, seen.end)
        if not seen.whole:
            raise DataError(f"{file}: holds no <annotations> of CVAT; {_REMEDY}")
        objects = Counter(found.label for image in seen.images for found in image.objects)
        classes = dict.fromkeys(seen.classes) | dict.fromkeys(objects)
        return Annotations(tuple(classes), seen.pictures(), skipped=Counter(seen.skipped), objects=dict(objects))


@final
@dataclass(frozen=True, slots=True)
class _Object:
    """A tag of an area as the file has it."""

    kind: str
    label: str
    given: Mapping[str, str]
    line: int


@final
@dataclass(frozen=True, slots=True)
class _Image:
    """A tag ``image`` and the areas in it."""

    name: str
    subset: str
    size: tuple[int, int]
    line: int
    objects: list[_Object] = field(default_factory=list)


@final
class _Seen:
    """What was read so far of a file."""

    def __init__(self, file: Path) -> None:
        self.whole = False
        self.classes: list[str] = []
        self.images: list[_Image] = []
        self.skipped: list[str] = []
        self._file = file
        self._path: list[str] = []
        self._label: dict[str, str] | None = None

    def begin(self, name: str, given: Mapping[str, str], line: int) -> None:
        """Take a tag."""
        where = f"{self._file}, line {line}"
        if not self._path and name != "annotations":
            raise DataError(f"{where}: <{shown(name)[1:-1]}> is no file of CVAT; {_REMEDY}")
        above = self._path[-1] if self._path else ""
        self._path.append(name)
        if name == "annotations":
            self.whole = True
        elif name == "label" and above == "labels":
            self._label = {}
        elif name == "track":
            raise DataError(f'{where}: holds tracks of frames, as "CVAT for video 1.1" does; {_REMEDY}')
        elif name == "image" and above == "annotations":
            size = stated_size(given.get("height"), given.get("width"), where)
            image = _Image(picture_name(given.get("name"), where), given.get("subset", ""), size, line)
            self.images.append(image)
        elif above == "image" and name in _AREAS:
            if name == "polygon" and given.get("points", "").count(";") < 2:
                self.skipped.append("polygon of fewer than 3 points")
            else:
                label = stated_class(given.get("label"), f"{where}: label of a {name}")
                self.images[-1].objects.append(_Object(name, label, dict(given), line))
        elif above == "image":
            self.skipped.append(name if name in _NO_AREAS else f"<{shown(name, 30)[1:-1]}>")

    def end(self, name: str, text: str, line: int) -> None:
        """Take the end of a tag, and its text."""
        self._path.pop()
        if self._label is None:
            return
        if name == "label":
            # elements of a skeleton are listed as labels too, with the skeleton as their parent
            if self._label.get("type") not in _TYPES and "parent" not in self._label:
                label = stated_class(self._label.get("name"), f"{self._file}, line {line}: name of a label")
                if label not in self.classes:
                    self.classes.append(label)
            self._label = None
        elif self._path and self._path[-1] == "label":
            self._label[name] = text

    def pictures(self) -> dict[str, AnnotatedPicture]:
        """By name; where two subsets of a project have one name, with the subset in front."""
        names = Counter(image.name for image in self.images)
        found: dict[str, AnnotatedPicture] = {}
        for image in self.images:
            name = f"{image.subset}/{image.name}" if names[image.name] > 1 and image.subset else image.name
            if name in found:
                raise DataError(
                    f"{self._file}, line {image.line}: picture {shown(name)} stands twice; export tasks one by one"
                )
            found[name] = AnnotatedPicture(image.size, partial(_shapes, image, self._file))
        return found


def _shapes(image: _Image, file: Path, size: tuple[int, int]) -> Iterator[Shape]:
    """The areas of a picture, each with its z_order."""
    for found in image.objects:
        yield _shape(found, size, f"{file}, line {found.line}: {found.kind} {shown(found.label)}")


def _shape(found: _Object, size: tuple[int, int], where: str) -> Shape:
    given = found.given

    def value(name: str, missing: str | None = None) -> float:
        return stated_number(given.get(name, missing), f"{where}: {name}")

    order = value("z_order", "0")
    if found.kind == "mask":
        height, width = (
            stated_whole(given.get(k), f"{where}: {k}", 1, size[i]) for i, k in enumerate(("height", "width"))
        )
        top, left = (stated_whole(given.get(k), f"{where}: {k}", -MAX_SIDE, MAX_SIDE) for k in ("top", "left"))
        mask = mask_of_rows(given.get("rle", ""), (height, width), where)
        return Shape(found.label, mask=mask, corner=(top, left), order=order)
    turn = value("rotation", "0")
    if found.kind == "ellipse":
        outline = ellipse((value("cx"), value("cy")), (value("rx"), value("ry")), turn)
    elif found.kind == "box":
        first, last = (value("xtl"), value("ytl")), (value("xbr"), value("ybr"))
        outline = rectangle(first, (last[0] - first[0], last[1] - first[1]), turn)
    else:
        outline = _polygon(given["points"], where)
    return Shape(found.label, (outline,), order=order)


def _polygon(text: str, where: str) -> np.ndarray:
    """Points of "x,y;x,y;…"."""
    try:
        pairs = [[float(value) for value in pair.split(",")] for pair in text.split(";")]
    except ValueError:
        raise DataError(f'{where}: points {shown(text)} are not "x,y;x,y;…"; {_REMEDY}') from None
    return stated_points(pairs, where)
