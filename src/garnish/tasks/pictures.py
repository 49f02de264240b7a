"""Reading picture and label files as arrays: bounded sizes, nothing unpickled, every failure one line with the file.

Shape letters: H W pixels, C colour channels of the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from garnish.errors import DataError, one_line

#: Largest picture or label that is read, in pixels; the size at which PIL refuses a picture by default.
MAX_PIXELS = 178_956_970

#: Endings of files that are looked for where a pattern names none.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

# What PIL raises for damaged files, by experience with truncated and garbled JPEG, PNG and TIFF files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def read_picture(path: Path) -> Tensor:
    """A picture as (3, H, W) uint8 RGB, upright by its EXIF orientation.

    Grey becomes three equal channels; alpha is dropped; 16-bit grey is divided by 257 (full range to full range);
    float pictures in [0, 1] are multiplied by 255.

    Raises:
        DataError: missing, damaged or larger than :data:`MAX_PIXELS`.
    """
    return to_rgb(_open(path), str(path))


def to_rgb(image: Image.Image, where: str) -> Tensor:
    """A PIL picture as :func:`read_picture` gives it, turned upright by its EXIF orientation.

    Raises:
        DataError: one that cannot be decoded, naming ``where``.
    """
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _from_deep(np.asarray(image), where)
        if image.mode == "P":  # straight to RGB warns where the transparency is a table
            image = image.convert("RGBA")
        pixels = np.array(image.convert("RGB"))
    except DataError:
        raise
    except _DAMAGED as error:
        raise _damaged(where, error) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_array(path: Path) -> np.ndarray:
    """A label file's stored numbers: (H, W) or (H, W, C); palette pictures give their indices.

    ``.npy`` files keep their dtype and shape (any rank); everything else is read by PIL, upright by EXIF.

    Raises:
        DataError: missing, damaged, larger than :data:`MAX_PIXELS`, or an ``.npy`` file that holds objects.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    image = _open(path)
    if image.mode == "LA":
        image = image.getchannel("L")
    elif image.mode == "RGBA":
        image = image.convert("RGB")
    return np.asarray(image)


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) from a picture's header alone, upright by EXIF.

    Raises:
        DataError: missing, not a picture, or larger than :data:`MAX_PIXELS`.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    return (width, height) if turned else (height, width)


def _open(path: Path) -> Image.Image:
    """A fully read, upright picture."""
    with _opened(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture of a size that is allowed; whatever goes wrong with it is one line."""
    try:
        with Image.open(path) as image:
            _check_size(path, image.height, image.width)
            yield image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; restore it or take it off the list of pictures") from None
    except DataError:
        raise
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _read_npy(path: Path) -> np.ndarray:
    try:
        # Mapped first: the header gives shape and dtype before a byte of data is read, and objects are refused.
        mapped = np.lib.format.open_memmap(path, mode="r")
        size = int(mapped.size)
        if size > 3 * MAX_PIXELS:
            raise DataError(f"{path}: holds {size:,} numbers, more than {3 * MAX_PIXELS:,}; cut it into smaller files")
        return np.array(mapped)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; restore it or take it off the list of pictures") from None
    except DataError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = one_line(error, 120)
        raise DataError(f"{path}: not a readable .npy array ({reason}); save it again with numpy.save") from error


def _from_deep(pixels: np.ndarray, where: str) -> Tensor:
    """(H, W) integers up to 65535 or floats in [0, 1] → (3, H, W) uint8."""
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind == "f":
        if not 0.0 <= low <= high <= 1.0:  # false for NaN as well
            raise DataError(
                f"{where}: float picture with values {low:g} to {high:g}; scale it to [0, 1] or save 8 bits"
            )
        grey = pixels * 255.0
    elif low >= 0 and high <= 65535:
        grey = pixels / 257.0
    else:
        raise DataError(f"{where}: integer picture with values {low:g} to {high:g}; save it with 8 or 16 bits")
    rounded = torch.from_numpy(np.rint(grey).astype(np.uint8))
    return rounded.expand(3, -1, -1).contiguous()


def _check_size(path: Path, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{path}: {width}x{height} is {height * width / 1e6:.0f} megapixels, "
            f"more than {MAX_PIXELS / 1e6:.0f}; cut it into smaller pictures"
        )


def _damaged(path: Path | str, error: BaseException) -> DataError:
    reason = one_line(error, 120).replace(str(path), "").replace("''", "").strip()
    return DataError(f"{path}: damaged or not a picture ({reason}); replace the file or remove it from the set")
