"""The numbers of one tile or strip of a TIFF: decompressed within the size that it must have, and predictors undone.

LZW, PackBits, ZSTD and JPEG are decoded by imagecodecs (``garnish[tiff]``). Shape letters: h w of the tile, S samples.
"""

from __future__ import annotations

import zlib
from types import ModuleType

import numpy as np

from garnish.errors import MissingExtraError
from garnish.pictures.tiff_page import (
    COMPRESSIONS,
    DEFLATE,
    DIFFERENCES,
    FLOAT_DIFFERENCES,
    JPEG,
    LZW,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    PLAIN,
    YCBCR,
    TiffPage,
)

#: Markers of a JPEG's frame, which says its size (ITU-T T.81, table B.1).
_FRAMES = (0xC0, 0xC1, 0xC2)


def check_codecs(page: TiffPage) -> None:
    """Raise MissingExtraError, without the file, where a page takes a library that is not installed."""
    if page.compression not in (NONE, DEFLATE, OLD_DEFLATE):
        _imagecodecs(page)


def decoded_tile(page: TiffPage, data: bytes, rows: int) -> np.ndarray:
    """(rows, w, S) numbers of a tile or strip in the machine's byte order.

    Raises:
        ValueError: not as many numbers as it must have; or whatever imagecodecs raises at damaged bytes.
    """
    width, samples = page.tile[1], page.depth
    if page.compression == JPEG:
        return _from_jpeg(page, data, rows)
    size = rows * width * samples * page.dtype.itemsize
    # some writers fill the last strip up
    raw = _decompressed(page, data, page.tile[0] * width * samples * page.dtype.itemsize)
    if len(raw) < size:
        raise ValueError(f"a tile or strip of {len(raw):,} bytes, where {size:,} are needed")
    if page.predictor == FLOAT_DIFFERENCES:
        return _from_float_differences(raw[:size], (rows, width, samples), page.dtype)
    pixels = np.frombuffer(raw, page.dtype, size // page.dtype.itemsize).reshape(rows, width, samples)
    pixels = pixels.astype(page.dtype.newbyteorder("="), copy=False)
    if page.predictor == PLAIN:
        return pixels
    assert page.predictor == DIFFERENCES
    whole = pixels.view(f"u{page.dtype.itemsize}")  # floats are predicted by their bits
    return np.cumsum(whole, axis=1, dtype=whole.dtype).view(pixels.dtype)


def _decompressed(page: TiffPage, data: bytes, size: int) -> bytes:
    """At most ``size`` bytes, which is all that memory is taken for (of a file's own bytes: all)."""
    if page.compression == NONE:
        return data
    if page.compression in (DEFLATE, OLD_DEFLATE):
        return zlib.decompressobj().decompress(data, size)
    codecs = _imagecodecs(page)
    decode = {LZW: codecs.lzw_decode, PACKBITS: codecs.packbits_decode}.get(page.compression, codecs.zstd_decode)
    return bytes(decode(data, out=size))


def _from_float_differences(raw: bytes, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """Bytes of the same weight lie together in a row, as differences (Adobe Photoshop TIFF technical note 3)."""
    rows, width, samples = shape
    planes = np.frombuffer(raw, np.uint8).reshape(rows, dtype.itemsize * width, samples)
    summed = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, width * samples)
    numbers = np.ascontiguousarray(summed.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
    return numbers.reshape(shape).astype(dtype.newbyteorder("="))


def _from_jpeg(page: TiffPage, data: bytes, rows: int) -> np.ndarray:
    height, width, samples = _jpeg_size(data)
    if height > page.tile[0] or width > page.tile[1] or samples != page.depth or height < rows:
        raise ValueError(f"a JPEG of {width}x{height} with {samples} bands in a tile of {page.tile[1]}x{page.tile[0]}")
    colours = {1: "GRAYSCALE", 3: "YCBCR" if page.photometric == YCBCR else "RGB", 4: "CMYK"}[samples]
    pixels = _imagecodecs(page).jpeg8_decode(
        data, tables=page.tables or None, colorspace=colours, outcolorspace="RGB" if samples == 3 else colours
    )
    found = np.asarray(pixels, np.uint8).reshape(height, width, samples)[:rows]
    if width == page.tile[1]:
        return found
    return np.pad(found, ((0, 0), (0, page.tile[1] - width), (0, 0)))  # the last of a row may be narrower


def _jpeg_size(data: bytes) -> tuple[int, int, int]:
    """Height, width and bands from the frame of a JPEG; raises ValueError if it has none."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _FRAMES:
            frame = data[place + 5 : place + 10]
            return int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:4], "big"), frame[4]
        place += 2 + size
    raise ValueError("a tile that is no JPEG")


def _imagecodecs(page: TiffPage) -> ModuleType:
    try:
        import imagecodecs
    except ImportError as error:
        name = COMPRESSIONS[page.compression]
        raise MissingExtraError(
            f"reading TIFF with {name} compression takes imagecodecs: pip install 'garnish[tiff]'"
        ) from error
    return imagecodecs
