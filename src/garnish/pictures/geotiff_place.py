"""Where a TIFF lies on the ground, as its tags say (OGC 19-008r4, sections 7.1 and 7.5).

Systems that are named by their EPSG code are told from the tags alone, with or without rasterio; GDAL never sees the
file: of others it is given the keys, in a file of one pixel.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from garnish.pictures.geotiff_tags import (
    DOUBLES,
    GEOGRAPHIC,
    IS_GEOGRAPHIC,
    IS_PROJECTED,
    KEYS,
    MATRIX,
    MODEL,
    PROJECTED,
    RASTER,
    SCALE,
    TEXTS,
    TIEPOINT,
)
from garnish.pictures.raster import Georeference
from garnish.pictures.tiff_directory import TiffDirectory
from garnish.pictures.tiff_tags import Tag, TiffLayout

_IS_POINT, _OWN, _VERTICAL = 2, 32767, 4096
#: Most values of each of the tags.
_MOST = 2**14


class Located(NamedTuple):
    """Where a picture lies, None if nothing is said or nothing that is understood; and what was not understood."""

    place: Georeference | None
    note: str | None


def place_of(tags: TiffDirectory, orientation: int) -> Located:
    """Where the picture of a directory lies.

    Raises:
        ValueError: damaged tags.
    """
    if not any(tag in tags for tag in (SCALE, TIEPOINT, MATRIX)):
        return Located(None, None)
    if orientation != 1:
        return Located(None, "left out: the picture is turned, and its place is that of the stored one")
    keys = _keys(tags)
    transform = _transform(tags, shift=0.5 if keys.get(RASTER) == _IS_POINT else 0.0)
    if transform is None:
        return Located(None, "left out: told by points, or by no plane")
    if not keys.keys() - {RASTER}:
        return Located(Georeference(None, transform), None)
    code = keys.get(PROJECTED if keys.get(MODEL) == IS_PROJECTED else GEOGRAPHIC, 0)
    if 0 < code < _OWN and _VERTICAL not in keys and keys.get(MODEL) in (IS_PROJECTED, IS_GEOGRAPHIC):
        return Located(Georeference(f"EPSG:{code}", transform), None)
    return _by_gdal(tags, transform)


def _keys(tags: TiffDirectory) -> dict[int, int]:
    """The keys whose value stands in the key directory itself."""
    rows = tags.numbers(KEYS, _MOST)
    rows = rows[4 : len(rows) // 4 * 4].reshape(-1, 4)
    return {int(key): int(value) for key, where, count, value in rows if (where, count) == (0, 1)}


def _transform(tags: TiffDirectory, shift: float) -> tuple[float, float, float, float, float, float] | None:
    scale, points, matrix = (tags.numbers(tag, _MOST).astype(np.float64) for tag in (SCALE, TIEPOINT, MATRIX))
    if matrix.size == 16:
        a, b, _, c, d, e, _, f = matrix[:8].tolist()
    elif scale.size >= 2 and points.size == 6:
        a, b, d, e = float(scale[0]), 0.0, 0.0, -float(scale[1])
        c, f = float(points[3] - points[0] * a), float(points[4] - points[1] * e)
    else:
        return None
    c, f = c - shift * (a + b), f - shift * (d + e)
    found = (a, b, c, d, e, f)
    return found if np.isfinite(found).all() and a * e != b * d else None


def _by_gdal(tags: TiffDirectory, transform: tuple[float, float, float, float, float, float]) -> Located:
    """The system that GDAL makes of the keys alone."""
    try:
        import rasterio
    except ImportError:
        note = "without its coordinate system, which takes rasterio: pip install 'garnish[geo]'"
        return Located(Georeference(None, transform), note)
    one = np.ones(1, np.uint16)
    pixel: dict[int, Tag] = dict.fromkeys((256, 257, 259, 262, 277, 278, 279), one)
    held: dict[int, Tag] = {
        258: one * 8,
        273: np.array([8], np.uint32),
        KEYS: tags.numbers(KEYS, _MOST).astype(np.uint16),
    }
    if DOUBLES in tags:
        held[DOUBLES] = tags.numbers(DOUBLES, _MOST).astype(np.float64)
    if TEXTS in tags:
        held[TEXTS] = tags.text(TEXTS, _MOST)
    layout = TiffLayout(big=False)
    data = layout.header(16) + bytes(8) + layout.directory(pixel | held, 16)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.io.MemoryFile(data) as memory, memory.open(driver="GTiff") as opened:
                crs = opened.crs.to_wkt() if opened.crs else None
    except Exception:  # GDAL's own kinds, and damaged text
        crs = None
    return Located(
        Georeference(crs, transform), None if crs else "without its coordinate system, which GDAL does not know"
    )
