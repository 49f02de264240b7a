"""Text of sheets: shortened to a width, and the labels of a legend broken into lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Colour = TypeVar("_Colour")


def fitted(text: str, font: Font, width: float) -> str:
    """``text``, shortened with dots to fit ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def in_lines(
    labels: Iterable[tuple[str, _Colour]], needed: Callable[[str], float], width: float
) -> list[list[tuple[str, _Colour]]]:
    """(name, colour) of a legend in lines of at most ``width`` pixels, or of one label.

    Args:
        labels: in order.
        needed: pixels that a name takes, with its patch of colour and the space behind it.
        width: of a line.
    """
    lines: list[list[tuple[str, _Colour]]] = []
    used = 0.0
    for name, colour in labels:
        if not lines or used + needed(name) > width:
            lines.append([])
            used = 0.0
        lines[-1].append((name, colour))
        used += needed(name)
    return lines
