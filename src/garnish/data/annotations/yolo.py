"""YOLO's segmentation text: one file a picture, a line an object, ``class x1 y1 x2 y2 …`` in shares of its sides.

The format: docs.ultralytics.com/datasets/segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.data.annotation_parts.stated_values import read_annotation_file
from garnish.data.annotations.annotation_format import AnnotatedPicture, AnnotationFormat, Annotations
from garnish.data.annotations.shape import Shape
from garnish.errors import DataError, shown

#: How far beyond a side a point may lie, in shares of it: tools round, and draw a little outside.
_BEYOND = 0.05
#: Largest number of a class.
_MOST_CLASS = 65_535


@final
class YoloText(AnnotationFormat):
    """Smaller objects lie above larger ones, as for Ultralytics; an empty file is a picture without objects."""

    kind: ClassVar[str] = "yolo"
    tool: ClassVar[str] = "YOLO segmentation"
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    one_a_picture: ClassVar[bool] = True

    @classmethod
    def recognised(cls, file: Path, head: bytes) -> bool:
        """Whether its first line is a class and an outline (or it is empty)."""
        words = head.lstrip(b"\xef\xbb\xbf").strip().partition(b"\n")[0].split()
        if not words:
            return True
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            return False
        near = all(-_BEYOND <= value <= 1 + _BEYOND for value in numbers[1:])
        return len(words) > 6 and numbers[0] == int(numbers[0]) >= 0 and near

    @classmethod
    def read(cls, file: Path) -> Annotations:
        """One picture, by the stem of the file; classes are numbers."""
        try:
            lines = read_annotation_file(file, cls.tool).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise DataError(f"{file}: is no UTF-8 text; export it again as {cls.tool}") from None
        found = [_object(line.split(), f"{file}, line {place}") for place, line in enumerate(lines, 1) if line.strip()]
        picture = AnnotatedPicture(None, partial(_shapes, found))
        objects = Counter(label for label, _ in found)
        return Annotations((), {file.stem: picture}, overlap="smaller", objects=dict(objects))


def _object(words: Sequence[str], where: str) -> tuple[str, np.ndarray]:
    """The class of a line, as text, and its outline, (K, 2) in shares of the sides."""
    try:
        label, values = float(words[0]), np.array([float(word) for word in words[1:]])
    except ValueError:
        raise DataError(f"{where}: {shown(' '.join(words[:12]))} is no class and numbers; remove the line") from None
    if not 0 <= label <= _MOST_CLASS or label != int(label):
        raise DataError(f"{where}: class {shown(words[0])} is no whole number from 0 on; mend the line")
    if len(values) == 4:
        raise DataError(
            f"{where}: is a box (class, middle, sides) and no outline; export outlines (segmentation), or remove it"
        )
    if len(values) < 6 or len(values) % 2:
        raise DataError(
            f"{where}: has {len(values)} numbers behind its class; an outline has two for each of 3 or more points"
            " (key points and confidences are not read)"
        )
    if not (np.abs(values - 0.5) <= 0.5 + _BEYOND).all():
        far = values[np.argmax(np.abs(np.nan_to_num(values, nan=np.inf) - 0.5))]
        raise DataError(f"{where}: {far:g} is no share of the picture's side (0 to 1); write shares, not pixels")
    return str(int(label)), values.reshape(-1, 2)


def _shapes(objects: Sequence[tuple[str, np.ndarray]], size: tuple[int, int]) -> Sequence[Shape]:
    """The outlines in pixels of a picture of some (H, W)."""
    return [Shape(label, (outline * (size[1], size[0]),)) for label, outline in objects]
