"""What a TIFF says beside its numbers: names of bands, "not measured", scale and offset, a place on the ground.

Texts are GDAL's: tag 42112 is XML with an item for each, 42113 a number (GDAL's documentation of its GTiff driver).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from garnish.errors import DataError, one_line, shown
from garnish.files.band_names import GDAL_METADATA, band_items
from garnish.files.orientation import swaps_sides
from garnish.pictures.geotiff_place import place_of
from garnish.pictures.raster import RasterFacts
from garnish.pictures.tiff_directory import TiffDirectory
from garnish.pictures.tiff_page import COMPRESSIONS, JPEG, NONE, TiffPage

_DESCRIPTION, _NODATA = 270, 42113
_MOST_TEXT = 2**20


def tiff_facts(tags: TiffDirectory, pages: Sequence[TiffPage], path: Path, *, has_mask: bool) -> RasterFacts:
    """The facts of a file, of the tags of its first page.

    Raises:
        DataError: a number of "not measured" that is none, or pages that the file says it has and has not.
        ValueError: damaged tags.
    """
    page = pages[0]
    colours = page.colours if len(pages) == 1 else (None,) * len(pages)
    items = band_items(tags.text(GDAL_METADATA, _MOST_TEXT))
    names = tuple(one_line(items.get((band, "description"), ""), 120) or colour for band, colour in enumerate(colours))
    _refuse_hidden_pages(tags.text(_DESCRIPTION, _MOST_TEXT), len(pages), path)
    notes = {
        "compression": COMPRESSIONS[page.compression],
        "tile" if page.tiled else "strip": f"{page.tile[1]}x{page.tile[0]}",
    }
    for role in ("scale", "offset"):
        told = [items.get((band, role)) for band in range(len(colours))]
        if any(told):
            default = "1" if role == "scale" else "0"
            notes[role] = " ".join(one_line(text or default, 40) for text in told)
    if has_mask:
        notes["mask"] = "not read: which pixels count is told by a mask, which only a number of no data replaces"
    if page.compression == JPEG:
        notes["lossy"] = "JPEG"
    placed = place_of(tags, page.orientation)
    if placed.note:
        notes["place"] = placed.note
    size = page.size[::-1] if swaps_sides(page.orientation) else page.size
    return RasterFacts(
        size=(size[0], size[1]),
        dtype=page.dtype.name,
        bands=names,
        nodata=_nodata(tags, page.dtype, path),
        place=placed.place,
        windows=len(page.offsets) > (page.samples if page.planar else 1)
        or (page.compression == NONE and not page.tiled),
        notes=notes,
    )


def _nodata(tags: TiffDirectory, dtype: np.dtype, path: Path) -> float | None:
    text = tags.text(_NODATA, 1000).strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError as error:
        raise DataError(f"{path}: its number of no data is {shown(text)}; save it with a number") from error
    if dtype.kind == "f":
        return number
    ends = np.iinfo(dtype)
    return number if number.is_integer() and ends.min <= number <= ends.max else None  # no pixel has it


def _refuse_hidden_pages(description: str, found: int, path: Path) -> None:
    """ImageJ and tifffile can store many pictures behind one directory, which says it in words."""
    told = re.search(r"^images=(\d{1,9})\b", description, re.MULTILINE) if description.startswith("ImageJ") else None
    if (told and int(told[1]) > found) or (description.startswith('{"shape"') and '"truncated": true' in description):
        raise DataError(f"{path}: holds more pages than it lists, as ImageJ writes stacks; save each as a page")
