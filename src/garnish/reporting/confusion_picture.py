"""A confusion matrix as a picture, readable for two classes and for hundreds.

Shape letters: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from garnish.drawing.labels import Font, fitted
from garnish.drawing.sheet import EMPTY, INK, PAPER
from garnish.errors import showable

#: Side that the cells of all classes share, and the smallest and largest cell, in pixels.
_ALL, _CELLS = 1100, (11, 52)
_MARGIN, _LARGEST_TEXT, _LONGEST_NAME = 20, 14, 190
#: From this side on a cell holds its number.
_NUMBERED = 26
_RIGHT, _WRONG = np.array((37, 108, 78)), np.array((186, 66, 24))


def confusion_picture(classes: Sequence[str], counts: NDArray[np.integer]) -> Image.Image:
    """Draw a matrix: rows are labels, columns predictions, colours and numbers shares of the row's pixels.

    Right is green, wrong is red. Colours grow with the square root of the share, so that one pixel in a hundred is
    seen; numbers are per cent, and none stands for less than half of one. A row without pixels is grey.

    Args:
        classes: C names.
        counts: (C, C) pixels.
    """
    number = len(classes)
    side = min(max(_ALL // number, _CELLS[0]), _CELLS[1])
    font = ImageFont.load_default(min(side - 2 if side < _LARGEST_TEXT + 2 else _LARGEST_TEXT, _LARGEST_TEXT))
    names = [fitted(showable(name), font, _LONGEST_NAME) for name in classes]
    room = round(max(font.getlength(name) for name in names)) + 8
    title = ImageFont.load_default(_LARGEST_TEXT)
    about = (
        "% of each row: rows labels, columns predictions" if side >= _NUMBERED else "rows labels, columns predictions"
    )
    left = top = _MARGIN + room
    top += _LARGEST_TEXT + 10
    width = max(left + number * side + _MARGIN, round(title.getlength(about)) + 2 * _MARGIN)
    sheet = Image.new("RGB", (width, top + number * side + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 6), about, INK, font=title)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    sheet.paste(Image.fromarray(_cells(share, counts.sum(1) > 0, side)), (left, top))
    for k, name in enumerate(names):
        middle = k * side + side // 2
        draw.text((left - 6, top + middle), name, INK, font=font, anchor="rm")
        upright = _text(name, font).rotate(90, expand=True)
        sheet.paste(upright, (left + middle - upright.width // 2, top - 5 - upright.height))
    if side >= _NUMBERED:
        numbers = ImageFont.load_default(round(min(side / 2.6, _LARGEST_TEXT)))
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            value = float(share[row, column])
            at = (left + column * side + side // 2, top + row * side + side // 2)
            draw.text(at, f"{100 * value:.0f}", PAPER if value > 0.3 else INK, font=numbers, anchor="mm")
    return sheet


def _cells(share: NDArray[np.floating], known: NDArray[np.bool_], side: int) -> NDArray[np.uint8]:
    """(C · side, C · side, 3) the coloured cells, with a line of paper between them."""
    own = np.eye(len(share), dtype=bool)[..., None]
    strength = np.sqrt(share)[..., None]
    colours = PAPER + strength * (np.where(own, _RIGHT, _WRONG) - PAPER)
    colours = np.where(known[:, None, None], np.where(strength > 0, colours, np.array((250, 250, 250))), EMPTY)
    cells: NDArray[np.uint8] = np.rint(colours).astype(np.uint8).repeat(side, 0).repeat(side, 1)
    cells[side - 1 :: side] = cells[:, side - 1 :: side] = PAPER
    return cells


def _text(name: str, font: Font) -> Image.Image:
    """A name alone, as large as it is."""
    box = font.getbbox(name or " ")
    made = Image.new("RGB", (max(1, round(box[2])), max(1, round(box[3]))), PAPER)
    ImageDraw.Draw(made).text((0, 0), name, INK, font=font)
    return made
