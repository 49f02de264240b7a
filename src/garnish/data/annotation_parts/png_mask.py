"""Masks that annotation files hold as PNG in base64.

Shape letters: h w pixels of the mask.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from garnish.errors import DataError, one_line, shown
from garnish.files.pictures import FREE_PIXELS, MAX_PIXELS, PIXELS_PER_BYTE


def mask_of_png(text: object, where: str, most: tuple[int, int]) -> np.ndarray:
    """(h, w) bool: where a PNG is not transparent, or not 0 if it has no alpha.

    Args:
        text: base64, with or without ``data:image/png;base64,`` in front.
        where: file and object, for messages.
        most: largest (h, w), compared before the picture is decoded.

    Raises:
        DataError: no base64, no PNG, larger, or damaged.
    """
    if not isinstance(text, str):
        raise DataError(f"{where}: expected a PNG in base64, got {shown(text)}; draw the mask again")
    try:
        data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            height, width = image.height, image.width
            free = max(FREE_PIXELS, PIXELS_PER_BYTE * len(data))
            if height > most[0] or width > most[1] or height * width > min(free, MAX_PIXELS):
                raise DataError(f"{where}: a mask of {width}x{height} for {most[1]}x{most[0]}; draw it again")
            if "A" in image.getbands():
                return np.asarray(image.getchannel("A")) > 0
            pixels = np.asarray(image)  # of a palette its indices
            return np.asarray(pixels.any(-1) if pixels.ndim == 3 else pixels > 0)
    except DataError:
        raise
    except Exception as error:  # damaged files make Pillow raise anything
        raise DataError(f"{where}: its mask is no PNG in base64 ({one_line(error, 80)}); draw it again") from None
