"""Base class of the readers of annotation files: options, which picture is which, and objects as masks in order.

Shape letters: H W pixels of the picture, h w of an object's box.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from garnish.data.annotation_files import AnnotationFile, formats, read_annotations
from garnish.data.annotations.filling import fill_polygons
from garnish.data.annotations.shape import Shape
from garnish.data.labels.reader import Reader
from garnish.errors import DataError, OptionError, shown, suggest
from garnish.files.pictures import MAX_PIXELS
from garnish.tasks.task import Task

#: Pixels that all objects' boxes of a picture may have together, and times that they may cover the picture. A file of
#: some kilobytes could ask for hours otherwise.
_MOST_FILLED, _MOST_COVERED = 1 << 28, 64
#: Objects that a picture of any size may have; a large one may have one for each 64 of its pixels.
_MOST_OBJECTS = 1 << 13

#: An object's pixels: what it is, (h, w) bool, and (top, left) of its box, which lies within the picture.
Layer = tuple[Shape, np.ndarray, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class ShapeFileReader(Reader, ABC):
    """A file of an annotation tool: polygons and masks of objects with classes, of one or of many pictures.

    Attributes:
        format: kind of the file's format; null: told by its first bytes.
        crowd: "ignore": crowds of objects that nobody told apart have no label, but for objects that were; "class":
            they are objects as others are.
    """

    shared: ClassVar[bool] = True

    format: str | None = None
    crowd: Literal["ignore", "class"] = "ignore"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format is not None and self.format not in (known := formats()):
            raise OptionError(f"format: unknown format {shown(self.format)}{suggest(self.format, known)}")

    @classmethod
    def suffixes(cls) -> frozenset[str]:
        """Those of all formats of annotation tools."""
        return frozenset(suffix for known in formats().values() for suffix in known.suffixes)

    def holds(self, file: Path, picture: str) -> bool:
        """Whether a file has an entry of a picture; one whose template has {name} is the picture's own."""
        if not file.is_file():
            return False
        if all("{name}" in template for template in self.labels):
            return True
        return self._opened(file).entry(picture) is not None

    def check_file(self, file: Path, task: Task, pictures: Sequence[str]) -> None:
        """Raise DataError if the file has one entry for two pictures, which would have one label."""
        opened = self._opened(file)
        seen: dict[str, str] = {}
        for picture in () if opened.format.one_a_picture else pictures:
            name = opened.entry(picture)
            if name is not None and seen.setdefault(name, picture) != picture:
                raise DataError(
                    f"{file}: {shown(name)} may be the picture {shown(seen[name])} or {shown(picture)}; give each"
                    " picture a name of its own, or each split a file, with {split} in `labels`; if but one of them is"
                    " annotated, list the annotated pictures under `splits`"
                )

    def lacking(self, file: Path, picture: str) -> str:
        """Which pictures the file names."""
        return f", which {self._opened(file).lacking(picture)}" if file.is_file() else super().lacking(file, picture)

    def files(self, file: Path, picture: str) -> tuple[Path, ...]:
        """The annotation file, and those that its entry of the picture leads to."""
        return (file, *self._opened(file).picture(picture).files)

    def _opened(self, file: Path) -> AnnotationFile:
        made = read_annotations(file, self.format)
        if made.format.one_a_picture and not all("{name}" in template for template in self.labels):
            raise DataError(
                f"{file}: is of one picture ({made.format.tool}), and the template has no {{name}}; write {{name}}"
                " where the picture's name stands"
            )
        return made

    def _objects(
        self, file: Path, picture: str, size: tuple[int, int] | None
    ) -> tuple[Sequence[Shape], tuple[int, int]]:
        """The objects of a picture, and its (H, W).

        Raises:
            DataError: the file does not have the picture, states another size, or cannot be read.
        """
        told = self._opened(file).picture(picture)
        if size is None:
            if told.size is None or told.size[0] * told.size[1] > MAX_PIXELS:
                raise DataError(f"{file}: the size of {shown(picture)} is not known; restore the picture")
            size = told.size
        if told.size is not None and told.size != size:
            height, width = told.size
            remedy = "annotate the picture in its own size, or replace it"
            if (width, height) == size:
                other = "upright" if self.orientation == "stored" else "stored"
                remedy = f"one of them is turned: write `orientation: {other}`, or annotate the picture again"
            raise DataError(
                f"{file}: states {width}x{height} for the picture {shown(picture)}, which is {size[1]}x{size[0]};"
                f" {remedy}"
            )
        return self._bounded(told.shapes(size), file, picture, size), size

    def _bounded(self, shapes: Iterable[Shape], file: Path, picture: str, size: tuple[int, int]) -> Sequence[Shape]:
        """Objects as a list; raises DataError as soon as they are too many, or their masks have too many pixels."""
        found: list[Shape] = []
        most, left = max(_MOST_OBJECTS, size[0] * size[1] // 64), max(_MOST_FILLED, _MOST_COVERED * size[0] * size[1])
        for shape in shapes:
            found.append(shape)
            left -= 0 if shape.mask is None else shape.mask.size
            if left < 0:
                raise _covered(len(found), file, picture, size)
            if len(found) > most:
                raise DataError(
                    f"{file}: {shown(picture)} has more than {most:,} objects, too many for {size[1]}x{size[0]} pixels;"
                    " remove what lies there several times, or annotate the picture in parts"
                )
        return found

    def _layers(self, shapes: Sequence[Shape], file: Path, picture: str, size: tuple[int, int]) -> Iterator[Layer]:
        """The pixels of objects in their order; those of no pixel in the picture are left out.

        Raises:
            DataError: an object that cannot be filled, or more to fill than pictures have.
        """
        left = max(_MOST_FILLED, _MOST_COVERED * size[0] * size[1])
        for shape in shapes:
            try:
                mask, corner = _within(shape, size)
            except ValueError as error:
                raise DataError(
                    f"{file}: an object {shown(shape.label)} of {shown(picture)}: {error}; correct or remove it"
                ) from None
            left -= mask.size
            if left < 0:
                raise _covered(len(shapes), file, picture, size)
            if mask.size:
                yield shape, mask, corner

    def _from_below(
        self, shapes: Sequence[Shape], overlap: str, layers: Callable[[Sequence[Shape]], Iterator[Layer]]
    ) -> Iterator[Layer]:
        """Layers from the lowest to the highest: crowds without a label, then objects by ``order`` and ``overlap``."""
        crowds = [s for s in shapes if s.crowd and self.crowd == "ignore"]
        others = sorted((s for s in shapes if not (s.crowd and self.crowd == "ignore")), key=lambda s: s.order)
        if overlap == "later":
            yield from layers([*crowds, *others])
            return
        yield from layers(crowds)
        yield from sorted(layers(others), key=lambda layer: (layer[0].order, -int(layer[1].sum())))


def _within(shape: Shape, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """(h, w) bool of the part of an object within the picture, and its (top, left)."""
    if shape.mask is None:
        return fill_polygons(shape.polygons, size)
    (top, left), (height, width) = shape.corner, shape.mask.shape
    bottom, right = min(top + height, size[0]), min(left + width, size[1])
    mask = shape.mask[max(-top, 0) : max(bottom - top, 0), max(-left, 0) : max(right - left, 0)]
    return mask, (max(top, 0), max(left, 0))


def _covered(count: int, file: Path, picture: str, size: tuple[int, int]) -> DataError:
    return DataError(
        f"{file}: the {count} objects of {shown(picture)} cover {size[1]}x{size[0]} pixels more than"
        f" {_MOST_COVERED} times; remove what lies there several times"
    )


def check_positive(positive: Sequence[str] | None, opened: AnnotationFile) -> None:
    """Raise DataError for a name of ``positive`` that no class of the file has; a file of one picture may lack it."""
    known = opened.held.classes
    for name in positive or ():
        if known and not opened.format.one_a_picture and name not in known:
            raise DataError(f"{opened.file}: positive: no class {shown(name)}{suggest(name, known)}")
