"""Where a picture lies on the ground, for the maps of it."""

from __future__ import annotations

from pathlib import Path

from garnish.errors import GarnishError
from garnish.output import logger
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Georeference

_log = logger(__name__)
_TIFF = (".tif", ".tiff")


def ground_of(file: Path | None) -> Georeference | None:
    """What a GeoTIFF says; None of other files, and where it cannot be told, which is logged."""
    if file is None or file.suffix.lower() not in _TIFF:
        return None
    try:
        with open_raster(file) as raster:
            note = raster.facts.notes.get("place")
            if note:
                _log.warning("%s: its place on the ground is %s", file, note)
            return raster.facts.place
    except GarnishError as error:
        _log.warning("%s: maps are written without a place on the ground (%s)", file, error)
        return None
