"""Files of decoded maps, which appear whole or not at all."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from garnish.errors import DataError
from garnish.files.atomic import write_file, writing


def with_suffix(path: Path, suffix: str) -> Path:
    """``path`` plus ``suffix``; dots in the name stay (``a.b`` → ``a.b.png``)."""
    return path.with_name(path.name + suffix)


def write_png(pixels: NDArray[np.uint8] | NDArray[np.uint16], path: Path) -> Path:
    """Write (H, W) uint8 or uint16, or (H, W, 3) uint8, without loss; returns ``path``."""
    return write_map(picture_bytes(Image.fromarray(np.ascontiguousarray(pixels)), "PNG"), path)


def picture_bytes(image: Image.Image, kind: str) -> bytes:
    """The content of a picture file of a format that PIL knows (``PNG``, ``JPEG``)."""
    data = io.BytesIO()
    image.save(data, format=kind)
    return data.getvalue()


def write_map(data: bytes, path: Path) -> Path:
    """Write or replace one file of a folder that exists, in one rename; returns ``path``.

    Raises:
        DataError: no space, no permission, no such folder; a former file is as it was, and no part of one is left.
    """
    if not path.parent.is_dir():
        raise DataError(f"{path}: cannot be written ({os.strerror(errno.ENOENT)}); make its folder")
    with writing(f"{path}:", " or choose another folder", DataError):
        write_file(path, data, synced=False)
    return path
