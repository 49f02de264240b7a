"""Pictures of any bands as callers give them, as values that models take, and as colours to be looked at.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from garnish.errors import DataError
from garnish.pictures.bands import Bands

#: Modes of Pillow's pictures whose numbers are what they show.
_MODES = ("L", "LA", "RGB", "RGBA", "I", "I;16", "F")


def stored_numbers(picture: str | Path | Image.Image | np.ndarray, bands: Bands, where: str) -> np.ndarray:
    """(H, W, C) numbers as a file holds them.

    Args:
        picture: an array (H, W, C), of one band also (H, W); or a PIL image, turned upright as its camera says.
        bands: that it has.
        where: the picture, for messages.

    Raises:
        DataError: an array of other axes or bands or without pixels, a palette, or a file.
    """
    if isinstance(picture, Image.Image):
        if picture.mode not in _MODES:
            raise DataError(
                f"{where}: pictures of mode {picture.mode} hold no numbers of bands; give an array (H, W, C)"
            )
        picture = np.asarray(ImageOps.exif_transpose(picture))
    if not isinstance(picture, np.ndarray):
        raise DataError(
            f"{where}: a file is read as 8-bit RGB; read its {len(bands.names)} bands to an array (H, W, C)"
        )
    stored = picture[..., None] if picture.ndim == 2 else picture
    if stored.ndim != 3 or not stored.size or stored.shape[2] != len(bands.names):
        hint = "; give picture.transpose(1, 2, 0)" if stored.ndim == 3 and len(stored) == len(bands.names) else ""
        raise DataError(f"{where}: expected (H, W, {len(bands.names)}), got {picture.shape} {picture.dtype}{hint}")
    return stored


def in_colour(values: np.ndarray, bands: Bands) -> np.ndarray:
    """Values (C, H, W) of bands as (H, W, 3) uint8 to be looked at; black where there are no data.

    Where red, green and blue are not all there, the first band is shown in grey.
    """
    places = [place for place in bands.rgb if place is not None]
    chosen = values[places if len(places) == 3 else [0, 0, 0]]
    shown = np.clip(np.nan_to_num(chosen.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return np.ascontiguousarray(np.round(shown * 255).astype(np.uint8).transpose(1, 2, 0))
