"""Contact sheets: pictures and maps in a grid of equal cells, one row per picture, titles above the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from garnish.drawing.labels import Font, fitted, in_lines
from garnish.drawing.map_files import picture_bytes, write_map
from garnish.errors import OptionError, showable

#: Colours of the sheet: paper, text, an empty cell, the hairline around cells.
PAPER, INK, EMPTY, FRAME = (255, 255, 255), (32, 36, 44), (246, 247, 249), (222, 225, 230)

_MARGIN, _GAP, _TITLE_PX, _LEGEND_PX = 24, 10, 15, 13


def draw_sheet(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]],
    path: Path,
    *,
    legend: Mapping[str, tuple[int, int, int]] | None = None,
    cell_px: int = 256,
) -> Path:
    """Draw a contact sheet and write it to ``path`` (its suffix determines the format): see :func:`contact_sheet`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise OptionError(f"{path}: no picture format ends in {path.suffix!r}; write .png or .jpg")
    return write_map(picture_bytes(contact_sheet(rows, legend=legend, cell_px=cell_px), kind), path)


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]],
    *,
    legend: Mapping[str, tuple[int, int, int]] | None = None,
    cell_px: int = 256,
) -> Image.Image:
    """Draw a contact sheet.

    Args:
        rows: one row per picture, as (title, (H, W, 3) uint8) cells. Cells with the same title share a column;
            columns are ordered by the first appearance of their title; a row without a title has an empty cell there.
        legend: label → colour, drawn below the grid.
        cell_px: longer side of a cell; all cells have the aspect ratio of the first picture, others are fitted inside.
    """
    # a line break in a name cannot be measured
    rows = [[(showable(title), image) for title, image in row] for row in rows]
    legend = {showable(name): colour for name, colour in (legend or {}).items()}
    titles = list(dict.fromkeys(title for row in rows for title, _ in row))
    assert titles, "a sheet needs at least one cell"
    height, width = rows[0][0][1].shape[:2]
    cell = (max(1, round(cell_px * width / max(height, width))), max(1, round(cell_px * height / max(height, width))))
    title_font, legend_font = ImageFont.load_default(_TITLE_PX), ImageFont.load_default(_LEGEND_PX)

    sheet_width = 2 * _MARGIN + len(titles) * cell[0] + (len(titles) - 1) * _GAP
    lines = in_lines(legend.items(), lambda name: _label_width(name, legend_font), sheet_width - 2 * _MARGIN)
    top = _MARGIN + _TITLE_PX + 10
    grid_bottom = top + len(rows) * cell[1] + (len(rows) - 1) * _GAP
    legend_height = 18 + len(lines) * (_LEGEND_PX + 9) if lines else 0
    sheet = Image.new("RGB", (sheet_width, grid_bottom + legend_height + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)

    for column, title in enumerate(titles):
        left = _MARGIN + column * (cell[0] + _GAP)
        draw.text((left, _MARGIN), fitted(title, title_font, cell[0]), INK, font=title_font)
        for line, row in enumerate(rows):
            corner = (left, top + line * (cell[1] + _GAP))
            frame = (corner[0] - 1, corner[1] - 1, corner[0] + cell[0], corner[1] + cell[1])
            draw.rectangle(frame, EMPTY, outline=FRAME)
            images = [image for name, image in row if name == title]
            if images:
                _paste(sheet, images[0], corner, cell)
    for line, labels in enumerate(lines):
        left, y = float(_MARGIN), grid_bottom + 18 + line * (_LEGEND_PX + 9)
        for name, colour in labels:
            draw.rounded_rectangle((left, y + 1, left + _LEGEND_PX, y + 1 + _LEGEND_PX), radius=3, fill=colour)
            draw.text((left + _LEGEND_PX + 6, y), name, INK, font=legend_font)
            left += _label_width(name, legend_font)
    return sheet


def _paste(sheet: Image.Image, pixels: np.ndarray, corner: tuple[int, int], cell: tuple[int, int]) -> None:
    """Fit a picture into a cell, centred, keeping its aspect ratio: nearest neighbour up, Lanczos down."""
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    scale = min(cell[0] / image.width, cell[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    sheet.paste(image, (corner[0] + (cell[0] - size[0]) // 2, corner[1] + (cell[1] - size[1]) // 2))


def _label_width(name: str, font: Font) -> float:
    """Width in pixels of one label of the legend, with the space after it."""
    return _LEGEND_PX + 6 + font.getlength(name) + 18
