"""One map as a file in memory: what a folder gets and what a server answers are the same bytes by the same code.

Shape letters: H W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from garnish.drawing.map_files import PNG_LEVEL, ids_png, picture_bytes
from garnish.files.memory_file import MemoryFile
from garnish.pictures.map_writer import MapWriter
from garnish.pictures.raster import Georeference

#: What a server calls them.
MEDIA_TYPES: Mapping[str, str] = {".png": "image/png", ".tif": "image/tiff", ".npy": "application/x-npy"}


@final
@dataclass(frozen=True, eq=False)
class MapFile:
    """A whole file.

    Attributes:
        data: its bytes.
        suffix: of its name, with the dot.
        scale: (factor, offset): a number of the file · factor + offset is the map's value; None: it is the value.
        nothing: the number of the file that means "nothing is known here"; None: none does, or that is not finite.
    """

    data: bytes
    suffix: str
    scale: tuple[float, float] | None = None
    nothing: float | None = None

    @property
    def media_type(self) -> str:
        """As HTTP names it."""
        return MEDIA_TYPES.get(self.suffix, "application/octet-stream")


def stored_file(
    stored: np.ndarray,
    palette: Sequence[tuple[int, int, int]],
    scale: tuple[float, float] | None,
    nothing: float | None,
    level: int = PNG_LEVEL,
) -> MapFile:
    """Numbers as a PNG where it holds them, with a palette where ids have colours; else as ``.npy``.

    Args:
        stored: (H, W) or (H, W, channels); a PNG holds uint8 and uint16 of one channel, and uint8 of three.
        palette: the colours of ids 0, 1, …; empty: they are no ids.
        scale: as :attr:`MapFile.scale`.
        nothing: as :attr:`MapFile.nothing`.
        level: of deflate in a PNG, 0 to 9.
    """
    if stored.ndim == 2 and stored.dtype == np.uint8 and palette:
        return MapFile(ids_png(stored, palette, level), ".png", scale, nothing)
    grey = stored.ndim == 2 and stored.dtype in (np.uint8, np.uint16)
    if grey or (stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.uint8):
        return MapFile(
            picture_bytes(Image.fromarray(np.ascontiguousarray(stored)), "PNG", level), ".png", scale, nothing
        )
    data = io.BytesIO()
    np.save(data, stored, allow_pickle=False)
    return MapFile(data.getvalue(), ".npy", scale, nothing)


def write_tiff(
    target: Path | MemoryFile,
    stored: np.ndarray,
    palette: Sequence[tuple[int, int, int]],
    nothing: float | None,
    place: Georeference | None,
) -> None:
    """Numbers (H, W) or (H, W, channels) of any kind that TIFF holds, as a tiled TIFF, with its place on the ground.

    Raises:
        DataError: numbers that TIFF lacks; a file that cannot be written.
        MissingExtraError: a ``place`` that takes rasterio, which is not installed.
    """
    stored = stored[..., None] if stored.ndim == 2 else stored
    (height, width, bands), dtype = stored.shape, stored.dtype
    colours = palette if palette and dtype == np.uint8 and bands == 1 else None
    with MapWriter(target, (height, width), bands, dtype, place, nothing, colours) as writer:
        writer.write(stored)
