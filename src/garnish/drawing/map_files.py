"""Writing map files (PNG and others) atomically: a file appears complete or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from garnish.errors import DataError, one_line, remedy_of


def with_suffix(path: Path, suffix: str) -> Path:
    """``path`` plus ``suffix``; dots in the name stay (``a.b`` → ``a.b.png``)."""
    return path.with_name(path.name + suffix)


def write_png(pixels: NDArray[np.uint8] | NDArray[np.uint16], path: Path) -> Path:
    """Write (H, W) uint8 or uint16, or (H, W, 3) uint8, losslessly; returns ``path``."""
    return write_whole(picture_bytes(Image.fromarray(np.ascontiguousarray(pixels)), "PNG"), path)


def picture_bytes(image: Image.Image, kind: str) -> bytes:
    """Encode a picture in a format that PIL knows (``PNG``, ``JPEG``)."""
    data = io.BytesIO()
    image.save(data, format=kind)
    return data.getvalue()


def _remedy(path: Path, error: OSError) -> str:
    return "make its folder" if not path.parent.is_dir() else f"{remedy_of(error)} or choose another folder"


def write_whole(data: bytes, path: Path) -> Path:
    """Write or replace one file by a single rename; returns ``path``.

    Raises:
        DataError: no space, no permission, no such folder; an existing file is unchanged, no partial file is left.
    """
    new = path.with_name(f".{path.name}.writing")
    try:
        try:
            new.write_bytes(data)
            os.replace(new, path)  # noqa: PTH105
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or one_line(error, 120)}); {_remedy(path, error)}"
        ) from error
    return path
