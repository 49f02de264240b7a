"""Opening a picture file of any kind, told by its first bytes, never by its name."""

from __future__ import annotations

from pathlib import Path

from garnish.files.regular import open_regular
from garnish.pictures.npy_raster import NpyRaster
from garnish.pictures.npz_raster import NpzRaster
from garnish.pictures.picture_raster import PictureRaster
from garnish.pictures.raster import Raster
from garnish.pictures.reading import MOST_BYTES, reading
from garnish.pictures.tiff_raster import TiffRaster

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY, _ZIP = b"\x93NUMPY", b"PK"


def open_raster(path: Path, bands: int | None = None) -> Raster:
    """An open picture file: TIFF of any bands, ``.npy``, ``.npz``, or what Pillow reads.

    Args:
        path: the file.
        bands: their number, if a data description states it; it tells (C, H, W) from (H, W, C) in an array.

    Raises:
        DataError: missing, damaged, not a picture, larger than its bytes explain, or of a kind that is not read.
        MissingExtraError: it takes a library that is not installed.
    """
    with reading(path), open_regular(path, MOST_BYTES) as stream:
        head = stream.read(8)
    if head[:4] in _TIFF:
        return TiffRaster(path)
    if head.startswith(_NPY):
        return NpyRaster(path, bands)
    if head.startswith(_ZIP):
        return NpzRaster(path, bands)
    return PictureRaster(path)
