"""Reading picture files, with bounded sizes; every failure is one line with the file.

Shape letters: H W pixels, C colour channels of the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from garnish.errors import DataError, one_line
from garnish.files.orientation import swaps_sides, turn
from garnish.files.picture_header import FORMATS, Stored, readable_formats, stored, unread
from garnish.files.regular import open_regular
from garnish.output import unheard

RGB = NDArray[np.uint8]
#: Largest picture or label that is read, in pixels; the size at which PIL refuses a picture by default.
MAX_PIXELS = 178_956_970
#: Longest side, in pixels; a JPEG's. No network has use for a picture that is millions long and one wide.
MAX_SIDE = 65_535
#: Largest file, in bytes: four bands of 16 bits, stored as they are.
MAX_BYTES = 2**31
#: Pixels that a file of any size may have (8192 by 8192), and that a file may have for each of its bytes, if that is
#: more: so a few kilobytes cannot ask for gigabytes. Photographs have less than 50 and label maps about 200 a byte.
FREE_PIXELS, PIXELS_PER_BYTE = 2**26, 500

#: Suffixes of picture files, which are tried if a pattern names none.
PICTURE_SUFFIXES = tuple(ending for endings in FORMATS.values() for ending in endings)


@final
@dataclass(frozen=True, eq=False, repr=False)
class PictureBytes:
    """The bytes of a picture file that is in memory, and what messages call it."""

    data: bytes
    name: str = "the picture"

    def __str__(self) -> str:
        return self.name


class OversizedPicture(DataError):
    """More pixels, or a longer side, than is read, or more pixels than so few bytes hold."""


def is_picture_file(path: Path, suffixes: tuple[str, ...] = PICTURE_SUFFIXES) -> bool:
    """Whether a file counts as a picture for data sets and ``garnish predict``: by its suffix, and not hidden."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


ONE_BAND = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits


def read_picture(path: Path | PictureBytes) -> RGB:
    """A picture as (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Grey becomes three equal channels; alpha is dropped and the colour beneath kept; 16 bits are divided by 257 (full
    range to full range), 16-bit colours of a TIFF by 256; float pictures in [0, 1] are multiplied by 255; CMYK is
    converted by Pillow's simple formula. ``docs/data.md`` has the table of what is read and what is refused.

    Raises:
        DataError: missing, damaged, no regular file or larger than :data:`MAX_PIXELS` and :data:`MAX_SIDE`, or than so
            few bytes hold; bands, pages or numbers that would be lost.
    """
    return open_picture(path)[0]


def open_picture(path: Path | PictureBytes) -> tuple[RGB, Stored]:
    """A picture as :func:`read_picture` gives it, and the facts of its file's header.

    Raises:
        DataError: as :func:`read_picture`.
    """
    with opened(path) as (image, facts):
        if reason := facts.refused(label=False):
            raise DataError(f"{path}: {reason}")
        if is_deep_png(facts):
            deep = sixteen_bits(path, image)
            colours = deep[..., : 3 if deep.shape[-1] > 2 else 1]
            return _from_deep(turn(colours, facts.orientation), str(path), 65535), facts
        image.load()
        rgb = to_rgb(image, str(path), 2**facts.bits - 1)
        if facts.bits > 8 and facts.mode not in ONE_BAND and int(rgb.max()) < 16:
            raise DataError(f"{path}: {_all_but_black('nothing above 4095')}")
    return rgb, facts


def to_rgb(image: Image.Image, where: str, largest: int = 65535) -> RGB:
    """A PIL picture as :func:`read_picture` gives it, turned upright by its EXIF orientation.

    Args:
        image: not modified.
        where: its name in messages.
        largest: value of white in a picture of more than 8 bits; 65535 unless its file says less.

    Raises:
        DataError: it cannot be decoded; the message names ``where``.
    """
    try:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would be copied
            image = ImageOps.exif_transpose(image)
        if image.mode in ONE_BAND:
            return _from_deep(np.asarray(image)[..., None], where, min(largest, 65535))
        return np.array(image if image.mode == "RGB" else composited(image).convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # damaged files make Pillow raise anything; garbled ones raised 14 kinds
        raise damaged(where, error) from error


def picture_size(path: Path | PictureBytes) -> tuple[int, int]:
    """(H, W) from a picture's header alone, upright by EXIF.

    Raises:
        OversizedPicture: larger than :data:`MAX_PIXELS` and :data:`MAX_SIDE`, or than so few bytes hold. DataError:
            missing, not a picture that is read.
    """
    with opened(path) as (_, facts):
        if reason := facts.refused(label=False):
            raise DataError(f"{path}: {reason}")
        height, width = facts.size
        return (width, height) if swaps_sides(facts.orientation) else (height, width)


def is_transparent(path: Path, facts: Stored) -> bool:
    """Whether any pixel of a readable picture is not opaque."""
    if facts.mode not in ("LA", "RGBA", "P"):
        return False
    with opened(path) as (image, _):
        if facts.mode == "P" and "transparency" not in image.info:
            return False
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return float(lowest) < 255  # type: ignore[arg-type]


# Pillow says of a TIFF of many bands why it does not read it, in a line without the file; `opened` says it with it
unheard("PIL.TiffImagePlugin")


@contextmanager
def opened(path: Path | PictureBytes) -> Iterator[tuple[Image.Image, Stored]]:
    """Open a picture of an allowed size, not yet decoded; any failure in the ``with`` block is a one-line DataError."""
    try:
        # as a stream: Pillow memory-maps an uncompressed TIFF given by name with rows of the turned width
        with picture_stream(path) as stream:
            try:
                image = Image.open(stream, formats=readable_formats())
            except UnidentifiedImageError:
                if reason := unread(stream):
                    raise DataError(f"{path}: {reason}") from None
                raise
            with image:
                _check_size(path, image.height, image.width, _bytes_of(stream))
                yield image, stored(image, stream)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; restore it or take it off the list of pictures") from None
    except DataError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(name for name in readable_formats() if name != "MPO")
        raise damaged(path, f"none of {known}") from error
    except Image.DecompressionBombError as error:
        raise OversizedPicture(
            f"{path}: is more than {MAX_PIXELS / 1e6:.0f} megapixels by its header; cut it into smaller pictures"
        ) from error
    except Exception as error:  # as in to_rgb
        raise damaged(path, error) from error


def picture_stream(path: Path | PictureBytes) -> BinaryIO:
    """The bytes of a picture file, from their beginning; raises OSError or DataError for what is no regular file."""
    return io.BytesIO(path.data) if isinstance(path, PictureBytes) else open_regular(path, MAX_BYTES)


def _bytes_of(stream: BinaryIO) -> int:
    if isinstance(stream, io.BytesIO):
        return stream.getbuffer().nbytes
    return os.fstat(stream.fileno()).st_size


def is_deep_png(facts: Stored) -> bool:
    """Whether Pillow returns only the upper 8 bits of a 16-bit picture."""
    return facts.format == "PNG" and facts.bits == 16 and facts.mode not in ONE_BAND


#: Layout of 16-bit colours in a PNG → the layout that gives the lower bytes; of grey and alpha: all four bytes.
_OTHER_LAYOUT = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def sixteen_bits(path: Path | PictureBytes, image: Image.Image) -> np.ndarray:
    """(H, W, C) uint16, as stored, of a PNG of which Pillow returns only the upper 8 bits.

    Pillow decodes it once more, for the lower bytes, by the layout of the other byte order. (torchvision has a reader
    of 16 bits, at some damaged files of which the process ends.)
    """
    with picture_stream(path) as stream, Image.open(stream, formats=("PNG",)) as again:
        (*place, layout), *_ = again.tile
        again.tile = [(*place, _OTHER_LAYOUT[str(layout)])]  # type: ignore[list-item]
        other = np.asarray(again)
    upper, lower = (other[..., ::2], other[..., 1::2]) if layout == "LA;16B" else (np.asarray(image), other)
    whole: np.ndarray = upper.astype(np.uint16) << 8 | lower
    return whole


def composited(image: Image.Image) -> Image.Image:
    """A palette picture as RGB, by way of RGBA to avoid Pillow's warning about transparency; others unchanged."""
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image


def _from_deep(pixels: np.ndarray, where: str, largest: int) -> RGB:
    """(H, W, 1 or 3) integers up to ``largest`` or floats in [0, 1] → (H, W, 3) uint8."""
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind == "f":
        if not 0.0 <= low <= high <= 1.0:  # false for NaN as well
            raise DataError(
                f"{where}: float picture with values {low:g} to {high:g}; scale it to [0, 1] or save 8 bits"
            )
        levels = pixels * 255.0
    elif low >= 0 and high <= largest:
        if largest == 65535 and 0 < high < 4096:
            raise DataError(f"{where}: {_all_but_black(f'nothing above {high:g}')}")
        levels = pixels / (largest / 255)
    else:
        raise DataError(f"{where}: integer picture with values {low:g} to {high:g}; save it with 8 or 16 bits")
    rounded = np.rint(levels).astype(np.uint8)
    return rounded if rounded.shape[-1] == 3 else np.repeat(rounded, 3, axis=-1)


def _all_but_black(found: str) -> str:
    return (
        f"a 16-bit picture that holds {found}, so it would be all but black; scale its numbers to 0 to 65535, save 8"
        " bits, or state `channels` and their range in the description of the data"
    )


def _check_size(path: Path | PictureBytes, height: int, width: int, num_bytes: int) -> None:
    """Raise DataError for a picture that is too large, before memory is taken for it."""
    if max(height, width) > MAX_SIDE:
        raise OversizedPicture(
            f"{path}: {width}x{height} has a side of more than {MAX_SIDE:,} pixels; cut it into smaller pictures"
        )
    if height * width > MAX_PIXELS:
        raise OversizedPicture(
            f"{path}: {width}x{height} is {height * width / 1e6:.0f} megapixels, "
            f"more than {MAX_PIXELS / 1e6:.0f}; cut it into smaller pictures"
        )
    if height * width > max(FREE_PIXELS, PIXELS_PER_BYTE * num_bytes):
        raise OversizedPicture(
            f"{path}: {width}x{height} is {height * width / 1e6:.0f} megapixels in {num_bytes:,} bytes, which is not"
            f" trusted beyond {FREE_PIXELS / 1e6:.0f}; cut it into smaller pictures"
        )


def damaged(path: Path | PictureBytes | str, error: BaseException | str) -> DataError:
    """The error of one line for whatever a library raised while it read a picture, or for a reason in words."""
    reason = one_line(error, 120).replace(str(path), "").replace("''", "").strip()
    if isinstance(error, MemoryError):
        reason = "it asks for more memory than there is"
    elif isinstance(error, BaseException) and not isinstance(error, OSError | ValueError | SyntaxError):
        reason = f"{type(error).__name__} {reason}".strip()  # such as a bare KeyError: 338
    remedy = "send another" if isinstance(path, PictureBytes) else "replace the file or remove it from the set"
    return DataError(f"{path}: damaged or not a picture ({reason}); {remedy}")
