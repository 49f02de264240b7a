"""A picture as :meth:`Model.predict` takes it.

Shape letters: C bands, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from garnish.errors import DataError
from garnish.files.given_pictures import conversion, pixels_of, some_pixels
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import stored_numbers

#: A picture: a file, a PIL image, a torch (3, H, W) uint8, or a numpy (H, W, 3) or grey (H, W) uint8. Of other bands: a
#: file, a numpy (H, W, C) of the numbers of one, or a torch (C, H, W) of them or of floats as ``Bands.values``.
Picture = str | Path | Image.Image | Tensor | np.ndarray


def picture_pixels(picture: Picture) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a tensor's, or as :func:`garnish.files.given_pictures.pixels_of` reads it.

    Raises:
        DataError: a file that is missing or cannot be read, or an array of the wrong shape or dtype.
    """
    if not isinstance(picture, Tensor):
        return pixels_of(picture)
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3 or picture.is_meta:
        floats, meta = picture.is_floating_point(), picture.is_meta
        code = "" if meta else conversion(tuple(picture.shape), str(picture.dtype), is_float=floats, channels=0)
        raise DataError(f"a picture tensor must be (3, H, W) uint8, got {tuple(picture.shape)} {picture.dtype}{code}")
    return some_pixels(picture.permute(1, 2, 0).cpu().numpy())


def picture_values(picture: Picture, bands: Bands, where: str) -> tuple[np.ndarray, np.dtype | None]:
    """(C, H, W) float32 values of a picture of some bands, NaN where there are no data, and the type that stores it.

    That is None for a tensor of floats, which are values already.

    Args:
        picture: an array or a PIL image: of a file's numbers; a tensor (C, H, W): integers likewise, floats as values.
        bands: that it has.
        where: the picture, for messages.

    Raises:
        DataError: other bands, numbers that the bands cannot read, or a file that cannot be read.
    """
    if not isinstance(picture, Tensor):
        stored, own = stored_numbers(picture, bands, where)
        return own.values(stored, where), stored.dtype
    if picture.ndim != 3 or picture.shape[0] != len(bands.names) or 0 in picture.shape or picture.is_meta:
        raise DataError(f"{where}: expected a tensor ({len(bands.names)}, H, W), got {tuple(picture.shape)}")
    if picture.is_floating_point():
        return picture.detach().float().cpu().numpy(), None
    stored = picture.permute(1, 2, 0).cpu().numpy()
    return bands.values(stored, where), stored.dtype
