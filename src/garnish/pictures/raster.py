"""``Raster``: an open picture file of any size, read by windows.

Shape letters: H W pixels of the file, h w of a window, C bands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np


class Window(NamedTuple):
    """A part of a picture, in pixels from its upper left corner."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Georeference:
    """Where a picture lies on the ground, as GeoTIFF says it.

    Attributes:
        crs: the coordinate system as WKT or "EPSG:…"; None: not said.
        transform: (a, b, c, d, e, f) of x = a·column + b·row + c, y = d·column + e·row + f.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class RasterFacts:
    """What the header of a picture file says.

    Attributes:
        size: (H, W), upright.
        dtype: of the numbers, as NumPy calls it.
        bands: name of each band; None where the file says none.
        nodata: the number that means "not measured"; None: the file says none.
        place: where it lies on the ground; None: it does not say.
        windows: whether a window is read without reading the whole file.
        notes: what else a reader should know, by name (``compression``, ``tile``).
    """

    size: tuple[int, int]
    dtype: str
    bands: tuple[str | None, ...]
    nodata: float | None = None
    place: Georeference | None = None
    windows: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)


class Raster(ABC):
    """An open picture file. Use it as a context manager; one thread at a time."""

    facts: RasterFacts

    @abstractmethod
    def read(self, window: Window | None = None) -> np.ndarray:
        """(h, w, C) numbers as the file holds them, upright; None: all of it.

        Raises:
            DataError: damaged, or a window that reaches outside.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file; may be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
