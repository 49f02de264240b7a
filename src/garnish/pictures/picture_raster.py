"""``PictureRaster``: a PNG, JPEG, WebP or another file that Pillow decodes as a whole.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from garnish.errors import DataError
from garnish.files.band_names import RED_GREEN_BLUE
from garnish.files.orientation import swaps_sides, turn
from garnish.files.picture_header import Stored
from garnish.files.pictures import ONE_BAND, composited, is_deep_png, opened, sixteen_bits
from garnish.pictures.raster import Raster, RasterFacts, Window
from garnish.pictures.reading import checked_window

_BY_NUMBER: dict[int, tuple[str | None, ...]] = {
    1: (None,),
    2: (None, "alpha"),
    3: RED_GREEN_BLUE,
    4: (*RED_GREEN_BLUE, "alpha"),
}
_BY_MODE: dict[str, tuple[str | None, ...]] = {
    "LA": _BY_NUMBER[2],
    "RGBA": _BY_NUMBER[4],
    **dict.fromkeys(("RGB", "P", "CMYK", "YCbCr"), RED_GREEN_BLUE),
}


@final
class PictureRaster(Raster):
    """A picture as stored: 8 or 16 bits, grey or colours, with its alpha; palettes, CMYK and YCbCr become RGB.

    It is decoded once, when it is first read, and kept until it is closed. Ordinary pictures are read as RGB by
    :func:`garnish.files.pictures.read_picture`, which opens the file once.

    Raises:
        DataError: as :func:`garnish.files.pictures.read_picture`, for what would be lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: np.ndarray | None = None
        with opened(path) as (image, stored):
            if reason := stored.refused(label=False):
                raise DataError(f"{path}: {reason}")
            height, width = stored.size
            self._size = (width, height) if swaps_sides(stored.orientation) else (height, width)
            names = _BY_MODE.get(stored.mode, (None,))
            if is_deep_png(stored) or not getattr(image, "tile", None):  # a PNG is decoded to learn its orientation
                self._pixels = self._decoded(image, stored)
                names = _BY_NUMBER[self._pixels.shape[-1]]
        self.facts = RasterFacts(size=self._size, dtype=_dtype(stored), bands=names, notes={"format": stored.format})

    def read(self, window: Window | None = None) -> np.ndarray:
        """(h, w, C) numbers as the file holds them, upright; None: all of it."""
        dtype = np.dtype(self.facts.dtype)
        top, left, height, width = checked_window(self._path, window, self.facts.size, len(self.facts.bands), dtype)
        if self._pixels is None:
            with opened(self._path) as (image, stored):
                self._pixels = self._decoded(image, stored)
            if self._pixels.shape != (*self._size, len(self.facts.bands)):
                raise DataError(f"{self._path}: was replaced by another while it was read; read it again")
        return self._pixels[top : top + height, left : left + width].copy()

    def close(self) -> None:
        """Forget the pixels; may be called again."""
        self._pixels = None

    def _decoded(self, image: Image.Image, stored: Stored) -> np.ndarray:
        """(H, W, C) numbers, upright."""
        if is_deep_png(stored):
            pixels = sixteen_bits(self._path, image)
        else:
            image.load()
            if image.mode in ("CMYK", "YCbCr"):
                image = image.convert("RGB")
            pixels = np.asarray(image.convert("L") if image.mode == "1" else composited(image))
        return turn(pixels if pixels.ndim == 3 else pixels[..., None], stored.orientation).astype(
            _dtype(stored), copy=False
        )


def _dtype(stored: Stored) -> str:
    if stored.mode == "F":
        return "float32"
    if stored.mode == "I" and stored.bits != 16:
        return "int32"
    return "uint16" if stored.mode in ONE_BAND or is_deep_png(stored) else "uint8"
