"""A place on the ground as the tags of a GeoTIFF (OGC 19-008r4, sections 7.1 and 7.4).

Coordinate systems that most satellite pictures have are written here; rasterio (``garnish[geo]``) knows all others.
"""

from __future__ import annotations

import re
import warnings
from io import BytesIO

import numpy as np
from PIL import Image

from garnish.errors import DataError, MissingExtraError, one_line
from garnish.pictures.raster import Georeference
from garnish.pictures.tiff_tags import Tag

SCALE, TIEPOINT, MATRIX, KEYS, DOUBLES, TEXTS = 33550, 33922, 34264, 34735, 34736, 34737
# keys of the key directory: kind of model, raster; code of the geographic and of the projected system
MODEL, RASTER, GEOGRAPHIC, PROJECTED = 1024, 1025, 2048, 3072
IS_PROJECTED, IS_GEOGRAPHIC, AREA = 1, 2, 1


def geotiff_tags(place: Georeference, where: str) -> dict[int, Tag]:
    """The tags that say where a picture lies.

    Args:
        place: its ``transform`` is of the corners of pixels (pixel is area), as GDAL has it.
        where: the file, for messages.

    Raises:
        MissingExtraError: a coordinate system that takes rasterio, which is not installed.
        DataError: text that names no coordinate system, or a transform that is no plane.
    """
    a, b, c, d, e, f = place.transform
    if not np.isfinite(place.transform).all() or a * e == b * d:
        raise DataError(f"{where}: a place on the ground with the transform {place.transform}, which is no plane")
    tags: dict[int, Tag] = {}
    if b == d == 0 and a > 0 > e:
        tags[SCALE], tags[TIEPOINT] = np.array([a, -e, 0.0]), np.array([0.0, 0, 0, c, f, 0])
    else:
        tags[MATRIX] = np.array([a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1.0])
    return tags | _system(place.crs, where)


def _system(crs: str | None, where: str) -> dict[int, Tag]:
    if crs is None:
        return {}  # pixel is area unless a key says otherwise
    code = int(found[1]) if (found := re.fullmatch(r"EPSG:(\d{4,5})", crs, re.I)) else 0
    if code == 4326:
        return {KEYS: _keys({MODEL: IS_GEOGRAPHIC, RASTER: AREA, GEOGRAPHIC: code})}
    if code == 3857 or 32601 <= code <= 32660 or 32701 <= code <= 32760:  # web maps; UTM north and south
        return {KEYS: _keys({MODEL: IS_PROJECTED, RASTER: AREA, PROJECTED: code})}
    return _as_gdal_writes(crs, where)


def _keys(values: dict[int, int]) -> np.ndarray:
    """A key directory of version 1.1.0: its head, then (key, 0: the value follows, 1 value, value)."""
    rows = [(1, 1, 0, len(values)), *((key, 0, 1, value) for key, value in sorted(values.items()))]
    return np.array(rows, np.uint16).ravel()


def _as_gdal_writes(crs: str, where: str) -> dict[int, Tag]:
    """The tags of a file of one pixel that GDAL writes in this system."""
    try:
        import rasterio
    except ImportError as error:
        raise MissingExtraError(
            f"{where}: writing the coordinate system {one_line(crs, 60)} takes rasterio: pip install 'garnish[geo]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            system = rasterio.crs.CRS.from_user_input(crs)
            with rasterio.io.MemoryFile() as memory:
                with memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", crs=system):
                    pass
                data = bytes(memory.getbuffer())
        with Image.open(BytesIO(data), formats=("TIFF",)) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError) as error:
        raise DataError(f"{where}: {one_line(crs, 60)} is no coordinate system ({one_line(error, 80)})") from error
    found: dict[int, Tag] = {KEYS: np.array(tags[KEYS], np.uint16)}
    if DOUBLES in tags:
        found[DOUBLES] = np.array(tags[DOUBLES], np.float64)
    if TEXTS in tags:
        found[TEXTS] = str(tags[TEXTS])
    return found
