"""Reading label files as arrays, with bounded sizes and without unpickling; every failure is one line with the file.

Shape letters: H W pixels, C colour channels of the file.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from garnish.errors import DataError, one_line, shown
from garnish.files.npy_header import npy_header
from garnish.files.orientation import UNDONE_BY, turn
from garnish.files.picture_header import LABEL_MODES, Stored, lossy, readable_formats
from garnish.files.pictures import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    PictureBytes,
    composited,
    damaged,
    is_deep_png,
    opened,
    picture_stream,
    sixteen_bits,
)
from garnish.files.regular import open_regular


def read_array(path: Path) -> np.ndarray:
    """A label file's stored numbers: (H, W) or (H, W, C); palette pictures give their indices.

    ``.npy`` files keep their dtype and shape (any rank); everything else is read by PIL, upright by EXIF.

    Raises:
        DataError: missing, damaged, larger than :data:`MAX_PIXELS`, or an ``.npy`` file that holds objects; bands,
            pages or numbers that would be lost; pixels that are not opaque.
    """
    return open_label(path)[0]


def open_label(
    path: Path | PictureBytes, *, colours: bool = False, upright: bool = True
) -> tuple[np.ndarray, Stored | None]:
    """A label file's numbers as :func:`read_array` gives them, and the facts of its header (None: an ``.npy`` file).

    Args:
        path: the file, or the bytes of a picture file.
        colours: palette pictures give their colours, not their indices.
        upright: turned by the file's own EXIF orientation; else the pixels as they are stored.

    Raises:
        DataError: as :func:`read_array`.
    """
    if isinstance(path, Path) and path.suffix.lower() == ".npy":
        return _read_npy(path), None
    with opened(path) as (image, facts):
        if reason := facts.refused(label=True):
            raise DataError(f"{path}: {reason}")
        if is_deep_png(facts):
            pixels = sixteen_bits(path, image)
            _refuse_transparent(_see_through(pixels, image), path)
        else:
            image.load()  # this turns a TIFF upright
            pixels = _decoded(image, path, colours)
            if facts.format == "TIFF":
                pixels = turn(pixels, UNDONE_BY[facts.orientation])
    if facts.unsigned and pixels.size and pixels.min() < 0:
        raise DataError(f"{path}: holds numbers above 2147483647, which would become negative; save it as .npy")
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        pixels = _opaque(pixels, path)
    return turn(pixels, facts.orientation) if upright else np.ascontiguousarray(pixels), facts


def label_numbers(
    image: Image.Image, where: str, *, colours: bool = False, upright: bool = True
) -> tuple[np.ndarray, int]:
    """The numbers of a label that Pillow holds, as :func:`open_label` has those of its file, and its EXIF orientation.

    Args:
        image: not modified.
        where: its name in messages.
        colours: palette pictures give their colours, not their indices.
        upright: turned by its own EXIF orientation; else the pixels as they are.

    Raises:
        DataError: a mode whose numbers are not those of a label, no pixels, pixels that are not opaque.
    """
    if image.mode not in LABEL_MODES:
        raise DataError(f"{where}: is of Pillow's mode {image.mode}; give RGB, or one grey or palette channel")
    if 0 in image.size:
        raise DataError(f"{where}: has no pixels: {image.size[0]}x{image.size[1]}")
    try:
        image.load()
        pixels = _decoded(image, where, colours)
    except DataError:
        raise
    except Exception as error:  # damaged files make Pillow raise anything
        raise damaged(where, error) from error
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        pixels = _opaque(pixels, where)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in UNDONE_BY:
        orientation = 1
    return turn(pixels, orientation) if upright else np.ascontiguousarray(pixels), orientation


def _decoded(image: Image.Image, where: Path | PictureBytes | str, colours: bool) -> np.ndarray:
    """The numbers of a decoded picture: of a palette the indices, or the colours; transparent pixels are refused."""
    pixels = np.asarray(image)
    _refuse_transparent(_see_through(pixels, image), where)
    return np.asarray(composited(image)) if colours and image.mode == "P" else pixels


def lossy_compression(path: Path | PictureBytes) -> str | None:
    """The lossy compression of a picture file, whatever its suffix; None: there is none, or it is no picture at all."""
    try:
        with picture_stream(path) as stream, Image.open(stream, formats=readable_formats()) as image:
            return lossy(image, stream)
    except Exception:  # Pillow raises anything
        return None


def refuse_lossy(path: Path | PictureBytes) -> None:
    """Raise DataError for a picture file with lossy compression, whatever its suffix.

    Files that are damaged or not pictures pass, since reading them raises.
    """
    if reason := lossy_compression(path):
        raise DataError(f"{path}: ids and colours are changed by {reason} compression; save the label as PNG or .npy")


def _opaque(pixels: np.ndarray, path: Path | PictureBytes | str) -> np.ndarray:
    """(H, W, 2) or (H, W, 4) → the same without alpha, which must be opaque everywhere."""
    _refuse_transparent(int((pixels[..., -1] != np.iinfo(pixels.dtype).max).sum()), path)
    return pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :-1]


def _see_through(pixels: np.ndarray, image: Image.Image) -> int:
    """Number of pixels whose grey level, colour or palette index the file declares transparent (PNG's tRNS, GIF)."""
    key = image.info.get("transparency")
    if key is None or image.mode not in ("1", "L", "P", "RGB", "I", "I;16"):
        return 0
    if isinstance(key, bytes):  # the alpha of each index
        return int(np.isin(pixels, [index for index, alpha in enumerate(key) if alpha < 255]).sum())
    same = pixels == np.asarray(key)
    return int((same.all(-1) if same.ndim == 3 else same).sum())


def _refuse_transparent(count: int, path: Path | PictureBytes | str) -> None:
    if count:
        raise DataError(
            f"{path}: {count} pixels are not opaque, and what a label means there is not known; save it without alpha"
        )


def _read_npy(path: Path) -> np.ndarray:
    try:
        with open_regular(path, MAX_BYTES) as stream:
            shape, by_columns, dtype = npy_header(stream)
            if dtype.hasobject:
                raise ValueError("it holds Python's objects, which could run code")
            if dtype.kind not in "buif":
                kind = one_line(str(dtype), 60)
                raise DataError(
                    f"{path}: holds {kind}, which are no plain numbers; save whole numbers, floats or booleans"
                )
            size = math.prod(shape)
            if size > 3 * MAX_PIXELS or max(shape, default=0) > MAX_SIDE:
                most = f"{3 * MAX_PIXELS:,}, or {MAX_SIDE:,} along an axis"
                raise DataError(
                    f"{path}: holds {size:,} numbers, {shown(shape)}: more than {most}; cut it into smaller files"
                )
            data = stream.read()
            if len(data) < size * dtype.itemsize:
                raise ValueError(f"{len(data):,} bytes, where {shown(shape)} needs {size * dtype.itemsize:,}")
            numbers = np.frombuffer(bytearray(data), dtype, size)
            return numbers.reshape(shape, order="F" if by_columns else "C")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; restore it or take it off the list of pictures") from None
    except DataError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        reason = one_line(error, 120)
        raise DataError(f"{path}: not a readable .npy array ({reason}); save it again with numpy.save") from error
