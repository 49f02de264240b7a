"""The sheet of one picture: it and its maps in cells large enough to read, and a legend for each task below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from garnish.drawing.colours import scale_colours
from garnish.drawing.labels import Font, fitted, in_lines
from garnish.drawing.sheet import FRAME, INK, PAPER
from garnish.errors import showable

_MARGIN, _GAP, _TITLE_PX, _LEGEND_PX, _LINE, _BAR = 24, 12, 16, 15, 25, 160
#: Longer side of a cell: small pictures are enlarged to the first, large ones reduced to the second.
_CELL = (320, 480)
#: Width of a sheet that screens show without reducing it; one cell may be wider.
_WIDEST = 1560
#: Labels that a legend lists; the others are counted.
MOST_LABELS = 24


@final
class MapLegend(NamedTuple):
    """What the colours of one map mean.

    Attributes:
        labels: label → colour, the most important first.
        scale: what the scale of colours begins and ends with; None: it has none.
    """

    labels: Mapping[str, tuple[int, int, int]]
    scale: tuple[str, str] | None = None


def map_sheet(
    cells: Sequence[tuple[str, np.ndarray]], legends: Mapping[str, MapLegend], *, largest: int = _CELL[1]
) -> Image.Image:
    """Draw the cells of one picture, as many side by side as a screen shows, and the legends below, a block each.

    Args:
        cells: (title, (H, W, 3) uint8) in order; all are fitted into the shape of the first.
        legends: task → what its colours mean; tasks without labels and scale are left out.
        largest: longer side of a cell in pixels, of pictures that have as many.
    """
    height, width = cells[0][1].shape[:2]
    longer = min(max(max(height, width), min(_CELL[0], largest)), largest)
    cell = (max(1, round(longer * width / max(height, width))), max(1, round(longer * height / max(height, width))))
    columns = max(1, min(len(cells), (_WIDEST - 2 * _MARGIN + _GAP) // (cell[0] + _GAP)))
    columns = -(-len(cells) // -(-len(cells) // columns))  # rows of about the same length
    rows = -(-len(cells) // columns)
    title, small = ImageFont.load_default(_TITLE_PX), ImageFont.load_default(_LEGEND_PX)
    step = (cell[0] + _GAP, cell[1] + _TITLE_PX + 8 + _GAP)
    sheet_width = max(2 * _MARGIN + columns * step[0] - _GAP, 320)
    told = {showable(task): legend for task, legend in legends.items() if legend.labels or legend.scale}
    indent = max((round(title.getlength(fitted(task, title, 200))) for task in told), default=0) + 16
    lines = {task: _lines(legend, small, sheet_width - 2 * _MARGIN - indent) for task, legend in told.items()}
    below = sum(max(1, len(found)) * _LINE + 6 for found in lines.values()) + (8 if lines else 0)
    sheet = Image.new("RGB", (sheet_width, 2 * _MARGIN + rows * step[1] - _GAP + below), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (name, pixels) in enumerate(cells):
        left, top = _MARGIN + number % columns * step[0], _MARGIN + number // columns * step[1]
        draw.text((left, top), fitted(showable(name), title, cell[0]), INK, font=title)
        top += _TITLE_PX + 8
        draw.rectangle((left - 1, top - 1, left + cell[0], top + cell[1]), PAPER, outline=FRAME)
        sheet.paste(_resized(pixels, cell), (left, top))
    y = _MARGIN + rows * step[1] - _GAP + 14
    for task, found in lines.items():
        draw.text((_MARGIN, y), fitted(task, title, 200), INK, font=title)
        if scale := told[task].scale:
            _draw_scale(sheet, draw, (_MARGIN + indent, y), scale, small)
        for number, labels in enumerate(found):
            _draw_labels(draw, (_MARGIN + indent, y + number * _LINE), labels, small)
        y += max(1, len(found)) * _LINE + 6
    return sheet


def _resized(pixels: np.ndarray, cell: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    if image.size == cell:
        return image
    return image.resize(cell, Image.Resampling.NEAREST if cell[0] > image.width else Image.Resampling.LANCZOS)


_Label = tuple[str, tuple[int, int, int] | None]


def _lines(legend: MapLegend, font: Font, width: int) -> list[list[_Label]]:
    """The labels of a legend in lines of at most ``width`` pixels."""
    labels: list[_Label] = []
    labels += [(showable(name), colour) for name, colour in legend.labels.items()][:MOST_LABELS]
    if len(legend.labels) > len(labels):
        labels.append((f"and {len(legend.labels) - len(labels)} more", None))
    short = [(fitted(name, font, width - 40), colour) for name, colour in labels]
    return in_lines(short, lambda name: _label_px(name, font), width)


def _label_px(name: str, font: Font) -> float:
    """Width of one label, with its patch of colour before it and the space behind it."""
    return _LEGEND_PX + 6 + font.getlength(name) + 20


def _draw_labels(draw: ImageDraw.ImageDraw, at: tuple[int, int], labels: Sequence[_Label], font: Font) -> None:
    left, y = float(at[0]), at[1]
    for name, colour in labels:
        if colour is not None:
            draw.rounded_rectangle((left, y + 2, left + _LEGEND_PX, y + 2 + _LEGEND_PX), radius=3, fill=colour)
        draw.text((left + (_LEGEND_PX + 6 if colour is not None else 0), y), name, INK, font=font)
        left += _label_px(name, font)


def _draw_scale(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], ends: tuple[str, str], font: Font
) -> None:
    left, y = at
    draw.text((left, y), ends[0], INK, font=font)
    left += round(font.getlength(ends[0])) + 8
    bar = scale_colours(np.broadcast_to(np.linspace(0, 1, _BAR), (_LEGEND_PX, _BAR)))
    sheet.paste(Image.fromarray(bar), (left, y + 2))
    draw.text((left + _BAR + 8, y), ends[1], INK, font=font)
