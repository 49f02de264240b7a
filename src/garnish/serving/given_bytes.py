"""The picture of a request, from its bytes: measured by its header, then read as ``predict`` reads a file.

Shape letters: C bands, H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from garnish.errors import DataError, GarnishError, one_line, shown
from garnish.files.bytes_as_file import bytes_as_file
from garnish.files.given_pictures import conversion
from garnish.files.npy_header import npy_header
from garnish.files.pictures import OversizedPicture, PictureBytes, picture_size, read_picture
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import bands_of_file, empty_pixels, in_colour
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Georeference
from garnish.predicting.overlapping import TakenPicture
from garnish.serving.refusals import TooLarge

#: What messages call it; requests name no files.
NAME = "the picture"
_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def picture_of(data: bytes, bands: Bands, megapixels: float) -> TakenPicture:
    """A picture as people and the model see it, upright; where a GeoTIFF lies on the ground is kept.

    Args:
        data: of a file of any kind that ``predict`` reads.
        bands: that it is to have.
        megapixels: most million pixels; compared with what the header says, before anything is decoded.

    Raises:
        TooLarge: more pixels. DataError: it cannot be read, or has other bands.
        MissingExtraError: reading it takes a library that is not installed.
    """
    if not data:
        raise DataError(f"{NAME}: has no bytes; send a picture file")
    if not bands.is_rgb:
        return _of_bands(data, bands, megapixels)
    if data.startswith(_NPY):
        raise _odd_array(data)
    given = PictureBytes(data, NAME)
    try:
        size = picture_size(given)
    except OversizedPicture as error:
        raise TooLarge(str(error)) from error
    _check_size(size, megapixels)
    pixels = read_picture(given)
    return TakenPicture(pixels, pixels.transpose(2, 0, 1), _ground(data))


def _odd_array(data: bytes) -> DataError:
    """The error for an array where RGB is asked for: which it is, and which it should be."""
    try:
        shape, _, dtype = npy_header(io.BytesIO(data))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        return DataError(f"{NAME}: is a damaged NumPy array ({one_line(error, 80)}); send a picture file")
    code = conversion(shape, str(dtype), is_float=dtype.kind == "f", channels=-1)
    return DataError(
        f"{NAME}: is a NumPy array {shown(shape)} {shown(str(dtype), 40)[1:-1]}, and RGB is asked for: send a picture"
        f" file, or give Client.predict (H, W, 3) or (H, W) uint8{code}"
    )


def _of_bands(data: bytes, bands: Bands, megapixels: float) -> TakenPicture:
    with _as_file(data) as file, open_raster(file, len(bands.names)) as raster:
        _check_size(raster.facts.size, megapixels)
        order, found = bands_of_file(file, raster.facts, bands)
        stored = raster.read()[..., order]
        values = found.values(stored, NAME)
        place = raster.facts.place
    return TakenPicture(in_colour(values, bands), values, place, empty_pixels(values), stored.dtype)


def _ground(data: bytes) -> Georeference | None:
    """Where a TIFF says that it lies; None of others, and where it cannot be told."""
    if not data.startswith(_TIFF):
        return None
    try:
        with _as_file(data) as file, open_raster(file) as raster:
            return raster.facts.place
    except GarnishError:  # its pixels were read by another library
        return None


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    """A path with these bytes; errors in the ``with`` block call it :data:`NAME`."""
    with bytes_as_file(data) as path:
        try:
            yield Path(path)
        except DataError as error:
            _renamed(error, path)


def _renamed(error: DataError, path: str) -> NoReturn:
    raise type(error)(one_line(str(error).replace(path, NAME), 2000)) from error


def _check_size(size: tuple[int, int], megapixels: float) -> None:
    height, width = size
    if height * width > megapixels * 1e6:
        raise TooLarge(
            f"{NAME}: {width}x{height} is {height * width / 1e6:.1f} megapixels, more than the {megapixels:g} that this"
            " server takes; make it smaller, or cut it"
        )
