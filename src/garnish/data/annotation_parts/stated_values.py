"""Values that a file of an annotation tool states: JSON of bounded size, numbers, points, sizes; errors of one line.

Shape letters: K points, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from garnish.errors import DataError, one_line, shown
from garnish.files.pictures import MAX_PIXELS, MAX_SIDE
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json

#: Largest file of annotations, in bytes: brush masks of some thousand pictures.
MOST_BYTES = 2**29
#: Farthest that a point may lie from the picture's corner, in pixels.
MOST_PIXELS = 1e6
#: Longest name of a class, in characters.
_LONGEST = 256


def read_annotation_file(file: Path, tool: str) -> bytes:
    """The bytes of a file of annotations.

    Raises:
        DataError: it cannot be read, or has more than :data:`MOST_BYTES` bytes.
    """
    try:
        return read_regular(file, MOST_BYTES)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({one_line(error, 120)}); export it from {tool} again") from None


def parsed_json(data: bytes, file: Path, tool: str) -> object:
    """The content of JSON; raises DataError if it is none."""
    try:
        return parse_json(data.decode("utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{file}: is no JSON ({one_line(error, 120)}); export it from {tool} again") from None


def stated_mapping(value: object, where: str) -> Mapping[str, object]:
    """A JSON object; raises DataError with ``where`` in front if it is none."""
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: expected a JSON object, got {shown(value)}; export the file again")
    return value


def stated_list(value: object, where: str) -> list[object]:
    """A JSON list; raises DataError if it is none."""
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list, got {shown(value)}; export the file again")
    return value


def stated_class(value: object, where: str) -> str:
    """Name of a class, without spaces around it; raises DataError if it is no text of some characters."""
    name = value.strip() if isinstance(value, str) else ""
    if not name or len(name) > _LONGEST:
        raise DataError(f"{where}: expected the name of a class, got {shown(value)}; name it in the tool")
    return name


def stated_number(value: object, where: str, most: float = MOST_PIXELS) -> float:
    """A finite number within ± ``most``, given as a number or as text; raises DataError otherwise."""
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not abs(found) <= most:
        raise DataError(f"{where}: {shown(value)} is no number between {-most:g} and {most:g}; mend it in the tool")
    return found


def stated_whole(value: object, where: str, least: int, most: int) -> int:
    """A whole number within bounds, given as a number or as text; raises DataError otherwise."""
    found = stated_number(value, where, 2**53)
    if found != int(found) or not least <= found <= most:
        raise DataError(f"{where}: {shown(value)} is no whole number from {least} to {most}; export the file again")
    return int(found)


def stated_size(height: object, width: object, where: str) -> tuple[int, int]:
    """(H, W) as a file states it; raises DataError for what no picture can have."""
    size = stated_whole(height, f"{where}: height", 1, MAX_SIDE), stated_whole(width, f"{where}: width", 1, MAX_SIDE)
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{where}: {size[1]}x{size[0]} is more than {MAX_PIXELS / 1e6:.0f} megapixels")
    return size


def stated_points(value: object, where: str, scale: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """(K, 2) float64 pixels of a list of [x, y], multiplied by ``scale`` (x, y); raises DataError for anything else."""
    try:
        # JSON's true, null and "1" would be taken for numbers
        plain = isinstance(value, list) and all(type(x) in (int, float) for point in value for x in point)
        found = np.array(value, np.float64) if plain else None
    except (ValueError, TypeError, OverflowError):
        found = None
    if found is None or found.ndim != 2 or found.shape[1] != 2:
        raise DataError(f"{where}: expected points [[x, y], …], got {shown(value)}; draw the object again")
    if not (np.abs(found) <= MOST_PIXELS).all():
        raise DataError(f"{where}: a point lies at {np.abs(found).max():g}, beyond all pictures; draw the object again")
    return found * scale
