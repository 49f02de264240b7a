"""Mending label files of ids and colours: the bytes of a PNG with some pixels changed.

Shape letters: H W pixels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from garnish.data.labels.boundaries import BoundariesReader
from garnish.data.labels.colours import ColoursReader
from garnish.doctor.label_codes import between_neighbours, connected_regions, lonely, packed_codes
from garnish.doctor.looked import Looked
from garnish.errors import DataError
from garnish.files.label_files import open_label
from garnish.files.pictures import opened

#: Share of the distance to the second nearest number or colour that the nearest one may have, to be clear.
_CLEAR = 0.5
#: Largest share of a label's pixels that is mended without a number or colour that is clear by itself.
_MOST_FILLED = 0.2


def snapped_file(file: Path, seen: Looked, task: str) -> bytes:
    """A PNG in which every id or colour is one that the description lists.

    What is less than half as far from the nearest one as from the second becomes that; other pixels become what the
    nearest clear pixel is.

    Raises:
        DataError: no PNG; ids that lie side by side, so that a changed id may be another class; a description that
            takes what it does not list (``others``, ``positive``, borders of any ids); too much is unclear.
    """
    pixels = _pixels(file)
    listed = _listed(seen, task, file)
    colours = pixels if pixels.ndim == 3 else pixels[..., None]
    if listed.shape[1] != colours.shape[-1]:
        raise DataError(f"{file}: holds other channels than the description lists; export it again")
    flat, back = np.unique(colours.reshape(-1, colours.shape[-1]), axis=0, return_inverse=True)
    apart = np.linalg.norm(flat[:, None].astype(np.float64) - listed[None], axis=-1)
    order = np.sort(apart, axis=1)
    clear = (order[:, 0] < _CLEAR * order[:, 1]).reshape(-1)[back.reshape(-1)].reshape(pixels.shape[:2])
    nearest = listed[apart.argmin(1)].astype(pixels.dtype)[back.reshape(-1)].reshape(colours.shape)
    if (~clear).mean() > _MOST_FILLED:
        raise DataError(f"{file}: {(~clear).mean():.0%} of its pixels are like two classes alike; export it again")
    return _png(file, _from_nearest(nearest.reshape(pixels.shape), ~clear))


def without_between(file: Path) -> bytes:
    """A PNG without the thin lines of in-between ids: their pixels become what the nearest other pixel is.

    Raises:
        DataError: no PNG, or too much of it is such lines.
    """
    pixels = _pixels(file)
    inner = lonely(pixels, between_neighbours(pixels)[1])
    if inner.mean() > _MOST_FILLED:
        raise DataError(f"{file}: {inner.mean():.0%} of its pixels are in-between ids; export it again")
    return _png(file, _from_nearest(pixels, inner))


def without_specks(file: Path) -> bytes:
    """A PNG without regions of one or two pixels that a single other region surrounds.

    Raises:
        DataError: no PNG.
    """
    pixels = _pixels(file)
    codes = packed_codes(pixels)
    specks = connected_regions(codes).sizes_by_pixel() <= 2
    around = np.ones((3, 3), bool)
    groups, count = ndimage.label(specks, structure=around)
    numbers = np.arange(1, count + 1)
    # the pixels around a group: the least and the largest of them are one where a single region surrounds it
    large = np.where(specks, np.iinfo(np.int64).max, codes)
    small = np.where(specks, np.iinfo(np.int64).min, codes)
    lowest = ndimage.minimum(ndimage.minimum_filter(large, footprint=around), groups, numbers)
    highest = ndimage.maximum(ndimage.maximum_filter(small, footprint=around), groups, numbers)
    alone = np.concatenate([[False], np.asarray(lowest) == np.asarray(highest)])
    return _png(file, _from_nearest(pixels, alone[groups]))


def _listed(seen: Looked, task: str, file: Path) -> np.ndarray:
    """(n, channels) float64: numbers or colours that the description lists."""
    reader = seen.reader(task)
    unlisted = any(getattr(reader, option, None) is not None for option in ("positive", "others", "divide"))
    if unlisted or isinstance(reader, BoundariesReader):
        told = "the description does not list all that the file may hold, so the nearest is not known"
        raise DataError(f"{file}: {told}; export it again")
    if isinstance(reader, ColoursReader):
        table = reader.table(seen.task(task)) or {}
        return np.array(list(table), np.float64)
    if getattr(reader, "packed", None) is not None:
        raise DataError(f"{file}: `packed` ids lie side by side; export it again")
    named = getattr(reader, "map", None)
    known = sorted({*(named or range(seen.task(task).channels)), *getattr(reader, "ignore", ()), 255})
    if seen.task(task).channels == 1:
        known = [0, 255]
    if min(np.diff(known), default=0) < 8:
        raise DataError(f"{file}: its ids lie side by side, so a changed one may be another class; export it again")
    return np.array(known, np.float64)[:, None]


def _from_nearest(pixels: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """The pixels, the lost ones with the value of the nearest that is not lost."""
    if not lost.any():
        return pixels
    rows, columns = ndimage.distance_transform_edt(lost, return_distances=False, return_indices=True)
    found: np.ndarray = pixels[rows, columns]
    return found


def _pixels(file: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) numbers of a PNG as they are stored."""
    if file.suffix.lower() != ".png":
        raise DataError(f"{file}: is no PNG, and is left as it is; export it again")
    pixels, facts = open_label(file, upright=False)
    if facts is None or facts.orientation != 1:
        raise DataError(f"{file}: is turned by EXIF, and is left as it is; save it upright")
    return pixels


def _png(file: Path, pixels: np.ndarray) -> bytes:
    """The bytes of a PNG of the same mode and palette as a file, with other pixels."""
    with opened(file) as (image, _):
        mode, palette = image.mode, image.getpalette()
    if pixels.ndim == 3 and pixels.dtype != np.uint8:
        raise DataError(f"{file}: colours of 16 bits are left as they are; export it again")
    made = Image.fromarray(np.ascontiguousarray(pixels))
    if mode == "P" and palette is not None:
        made.putpalette(palette)
    elif mode == "1":
        made = made.convert("1")
    stream = io.BytesIO()
    made.save(stream, "PNG")
    return stream.getvalue()
