"""A held picture as data sets give it: 8-bit RGB, or the values of the bands that are stated.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision import tv_tensors

from garnish.data.held.in_python import in_python
from garnish.data.held.values import file_of, kind_of, numbers_of_value
from garnish.data.picture_reading import read_image
from garnish.errors import DataError
from garnish.files.orientation import UNDONE_BY
from garnish.files.pictures import open_picture, opened, to_rgb
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import stored_numbers

#: How far floats may lie outside of [0, 1], as resizing rounds.
_ROUNDING = 1e-3
_OWN = "garnish normalises by itself"


def image_of(value: Any, bands: Bands, where: str) -> tuple[tv_tensors.Image, int]:
    """A picture, and its EXIF orientation, by which it was turned (1 where it has none).

    Args:
        value: a picture of Pillow's; an array (H, W, 3), (H, W) or (3, H, W), or a tensor of these, of uint8 or of
            floats in [0, 1]; a path. Of other ``bands``: (H, W, C) or (C, H, W) of the numbers of a file.
        bands: of the set.
        where: the item, for messages.

    Returns:
        (3, H, W) uint8, or (C, H, W) float32 with NaN where there is no data.

    Raises:
        DataError: anything else; floats that were normalised already; numbers of which nothing says what is white.
    """
    if (file := file_of(value, where, label=False)) is not None:
        if isinstance(file, Path):
            return read_image([file], bands)
        if bands.is_rgb:
            pixels, facts = open_picture(file)
            return _image(pixels.transpose(2, 0, 1)), facts.orientation
        with opened(file) as (value, _):
            value.load()
    if isinstance(value, Image.Image):
        if 0 in value.size:
            raise DataError(f"{where}: the picture has no pixels: {value.size[0]}x{value.size[1]}")
        tag = value.getexif().get(ExifTags.Base.Orientation, 1)
        orientation = tag if tag in UNDONE_BY else 1
        if bands.is_rgb:
            return _image(to_rgb(value, where).transpose(2, 0, 1)), orientation
        return _values(stored_numbers(value, bands, where)[0], bands, where), orientation
    numbers = numbers_of_value(value, where)
    if numbers is None:
        raise DataError(f"{where}: its picture is a {type(value).__name__}; give one of Pillow, an array or a tensor")
    if not numbers.size:
        raise DataError(f"{where}: the picture has no pixels: {kind_of(value)}")
    stored = _bands_last(numbers, 3 if bands.is_rgb else len(bands.names), isinstance(value, Tensor), bands, where)
    if not bands.is_rgb:
        return _values(stored, bands, where), 1
    pixels = _eight_bits(stored, kind_of(value), where)
    return _image(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).transpose(2, 0, 1)), 1


def _values(stored: np.ndarray, bands: Bands, where: str) -> tv_tensors.Image:
    """(H, W, C) numbers of a file → (C, H, W) float32, as :func:`read_image` makes them of one."""
    try:
        values = bands.values(stored, where)
    except DataError as error:
        raise DataError(in_python(str(error))) from None
    if np.isinf(values).any():
        raise DataError(f"{where}: its picture holds infinite numbers; say that they are no data: gn.Bands(nodata=…)")
    return _image(values)


def _bands_last(numbers: np.ndarray, count: int, of_torch: bool, bands: Bands, where: str) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) → (H, W, C), C being the number of bands, or 1 of a grey picture.

    Where both ends of a shape have C, the bands of an array are the last axis, those of a tensor the first.
    """
    shape = numbers.shape
    fits = (count, 1) if bands.is_rgb else (count,)
    if numbers.ndim == 2 and 1 in fits:
        return numbers[..., None]
    if numbers.ndim == 3:
        for one in fits:
            first, last = shape[0] == one, shape[2] == one
            if first and (of_torch or not last):
                return np.moveaxis(numbers, 0, -1)
            if last:
                return numbers
    told = f"{where}: its picture has the shape {tuple(shape)}"
    if numbers.ndim == 4:
        raise DataError(f"{told}, which is a batch; give single pictures")
    if not bands.is_rgb:
        raise DataError(f"{told}, and `bands` name {count}; give (H, W, {count}) or ({count}, H, W)")
    if 4 in (shape[:1] or (0,)) + shape[-1:]:
        raise DataError(f"{told}; give three of the channels without alpha, or name four: bands=gn.Bands(names=[…])")
    raise DataError(f"{told}; give (3, H, W) or (H, W, 3), or name the bands: bands=gn.Bands(names=[…], range=[…])")


def _eight_bits(stored: np.ndarray, kind: str, where: str) -> np.ndarray:
    """(H, W, 1 or 3) uint8 of uint8, or of floats in [0, 1]."""
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype.kind != "f":
        raise DataError(
            f"{where}: its picture is an {kind} with numbers from {stored.min()} to {stored.max()}; give uint8, or say"
            " what is black and white: bands=gn.Bands(range=[LOW, HIGH])"
        )
    low, high = float(stored.min()), float(stored.max())
    if not np.isfinite((low, high)).all():
        raise DataError(
            f"{where}: its picture holds NaN or infinite numbers; mend it, or where they mean no data write"
            " bands=gn.Bands(range=[LOW, HIGH])"
        )
    if low < -_ROUNDING:
        told = f"{where}: its picture has floats from {low:.3g} to {high:.3g} (mean {float(stored.mean()):.2g})"
        raise DataError(
            f"{told}, so it seems normalised already; take Normalize out of its transforms, as {_OWN} (clamp(0, 1)"
            " after a resize that overshoots; bands=gn.Bands(range=[LOW, HIGH]) where these are measurements)"
        )
    if high > 1 + _ROUNDING:
        if high <= 255 and high > 2.7:
            remedy = "give uint8 of 0 to 255, or divide by 255"
        else:
            remedy = f"take out what normalises them, as {_OWN}, or say what is white: bands=gn.Bands(range=[0, WHITE])"
        raise DataError(f"{where}: its picture has floats up to {high:.3g}, where 1 is white; {remedy}")
    pixels: np.ndarray = np.rint(np.clip(stored, 0, 1) * 255).astype(np.uint8)
    return pixels


def _image(values: np.ndarray) -> tv_tensors.Image:
    """A copy: what people hold is not to change when a picture does."""
    return tv_tensors.Image(torch.from_numpy(np.array(values, order="C")))
