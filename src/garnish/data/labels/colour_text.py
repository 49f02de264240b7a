"""Colours as people write them in a description, and Pascal's palette."""

from __future__ import annotations

import re

from garnish.checking.plain_data import Json
from garnish.data.labels.option_values import several, whole_number
from garnish.errors import OptionError, shown

#: Red, green and blue, from 0 to 255.
RGB = tuple[int, int, int]

_HEX = re.compile("#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")
_THREE = re.compile(r"[0-9]{1,3}(?:\s*,\s*|\s+)[0-9]{1,3}(?:\s*,\s*|\s+)[0-9]{1,3}")


def colours_of(given: Json, at: str) -> list[RGB]:
    """The colours of one class: [r, g, b], "#ff8000", "#f80", "255 128 0", "255, 128, 0", or a list of these.

    Raises:
        OptionError: anything else; the message starts with ``at``.
    """
    is_list = isinstance(given, list | tuple) and given and isinstance(given[0], list | tuple | str)
    # three texts of digits are one colour, as JSON of other tools has it
    if is_list and all(isinstance(one, str) and one.strip().isdigit() for one in given):
        is_list = False
    return [_colour(one, at) for one in (given if is_list else [given])]


def pascal_colours(count: int) -> list[RGB]:
    """The colours of Pascal VOC's palette: bits 0, 1 and 2 of an index are the highest of red, green and blue, bits 3,
    4 and 5 the next ones, and so on.
    """
    found = []
    for index in range(count):
        levels = [0, 0, 0]
        for bit in range(8):
            levels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        found.append((levels[0], levels[1], levels[2]))
    return found


def _colour(given: Json, at: str) -> RGB:
    if isinstance(given, str):
        text = given.strip()
        if _HEX.fullmatch(text):
            digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
            return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
        if not _THREE.fullmatch(text):
            raise OptionError(
                f'{at} has {shown(given)}; write [255, 128, 0], "255 128 0" or "#ff8000" (with the quotes)'
            )
        given = re.split(r"[\s,]+", text)
    rgb = [whole_number(level, "colours") for level in several(given)]
    if len(rgb) != 3 or not all(0 <= level <= 255 for level in rgb):
        raise OptionError(f"{at} has {shown(given)}; expected three numbers from 0 to 255")
    return rgb[0], rgb[1], rgb[2]
