"""``Decoding``: base class of what a head's raw output means: how it becomes a map, is painted and is written.

NumPy and Pillow alone, so that an exported model predicts the same maps and files without torch. A task names its
decoding (``Task.decoding``); a manifest names it as a file of a bundle names a task, by class and options.

Shape letters: C output channels of the head, K values a pixel, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from garnish.checking.arguments import Options
from garnish.decodings.map_file import MapFile, stored_file, write_tiff
from garnish.drawing.map_files import PNG_LEVEL, with_suffix, write_map
from garnish.files.memory_file import MemoryFile
from garnish.pictures.raster import Georeference


@dataclass(frozen=True, kw_only=True)
class Decoding(Options, ABC):
    """What the raw output of one head means. Subclasses are frozen dataclasses; their fields are their options."""

    #: Whether :meth:`values` are probabilities, one a class, or of yes.
    are_shares: ClassVar[bool] = False
    #: Whether values of two passes have one scale. Where not, windows do not fit each other, which is said.
    same_scale: ClassVar[bool] = True
    #: The number of a map, in every value of a pixel, that means "nothing is known here"; None: maps have none.
    nothing: ClassVar[float | None] = None
    #: The number of :meth:`stored` that means "nothing is known here", as GeoTIFFs state it; None: none does.
    nothing_stored: ClassVar[float | None] = None
    #: Unit of the map's numbers, such as "m"; None: they have none.
    unit: ClassVar[str | None] = None
    #: What each channel of a map (C, H, W) points along; empty: it has no directions.
    axes: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of channels C of the raw output."""

    @abstractmethod
    def decode(self, raw: np.ndarray) -> np.ndarray:
        """Raw output (C, H, W) float32, finite → the map that ``Task.decode`` gives of it."""

    def values(self, raw: np.ndarray) -> np.ndarray:
        """Raw output (C, H, W) float32, finite → (K, H, W) float32: numbers whose mean over passes means something.

        Probabilities, metres, unit vectors. Windows of a large picture overlap, and a picture may be mirrored: there
        the values of several passes are averaged, and :meth:`of_values` makes the map. ``of_values(values(raw))`` is
        ``decode(raw)``, to the rounding of float32. By default the raw output itself.
        """
        return raw.astype(np.float32)

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """Mean values (K, H, W) float32 → the map, as :meth:`decode` gives it."""
        return self.decode(self.raw_of(values))

    def mirrored(self, values: np.ndarray) -> np.ndarray:
        """Values (K, H, W) of a picture whose left and right were exchanged → those of the picture as it is.

        By default each row is turned round. What has a direction must turn that as well.
        """
        return values[..., ::-1]

    def raw_of(self, values: np.ndarray) -> np.ndarray:
        """Mean values (K, H, W) float32 → a finite raw output (C, H, W) float32 that has them; metrics take those.

        By default the values themselves.
        """
        return values

    def stored(self, decoded: np.ndarray) -> np.ndarray:
        """A decoded map, or rows of it → what a file holds, (H, W) or (H, W, channels): by default the map itself."""
        return decoded if decoded.ndim == 2 else np.moveaxis(decoded, 0, -1)

    @property
    def stored_scale(self) -> tuple[float, float] | None:
        """(factor, offset): a number of :meth:`stored` · factor + offset is the map's; None: it is that number."""
        return None

    def palette(self) -> Sequence[tuple[int, int, int]]:
        """Colours of the ids 0, 1, … in :meth:`stored`: those of :meth:`legend`; empty where it holds no ids."""
        return tuple(self.legend().values())

    def blanked(self, decoded: np.ndarray, empty: np.ndarray | None) -> np.ndarray:
        """A decoded map (…, H, W) with :attr:`nothing` at some pixels; the map itself where there are none.

        Args:
            decoded: a decoded map, or rows of it.
            empty: (H, W) bool, where the picture has no data; None: it has data everywhere.
        """
        if empty is None or self.nothing is None:
            return decoded
        found: np.ndarray = np.where(empty, decoded.dtype.type(self.nothing), decoded)
        return found

    @abstractmethod
    def paint(self, decoded: np.ndarray) -> np.ndarray:
        """A decoded map or a target of one picture → (H, W, 3) uint8 RGB."""

    def file(self, decoded: np.ndarray, level: int = PNG_LEVEL) -> MapFile:
        """One decoded map as its file, in memory: :meth:`stored` as a PNG where that holds it, else ``.npy``.

        Args:
            decoded: the map.
            level: of deflate in a PNG, 0 to 9.
        """
        nothing = self.nothing_stored
        return stored_file(self.stored(decoded), self.palette(), self.stored_scale, nothing, level)

    @final
    def tiff(self, decoded: np.ndarray, place: Georeference | None = None) -> MapFile:
        """One decoded map as a TIFF of :meth:`stored`, in memory, with its place on the ground.

        Raises:
            DataError: numbers that TIFF does not hold. MissingExtraError: a place that takes rasterio.
        """
        file = MemoryFile()
        write_tiff(file, self.stored(decoded), self.palette(), self.nothing_stored, place)
        return MapFile(file.data, ".tif", self.stored_scale, self.nothing_stored)

    def write(self, decoded: np.ndarray, path: Path) -> Path:
        """Write :meth:`file` to ``path`` plus its suffix; returns the file.

        Raises:
            DataError: no space, no permission, no such folder; no partial file is left.
        """
        made = self.file(decoded)
        return write_map(made.data, with_suffix(path, made.suffix))

    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Label names and their colours, for pictures; empty where the map is continuous."""
        return {}

    def class_ids(self, decoded: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """A decoded map → (H, W) uint8 ids and the name of each; ids without a name are no class. None: it has none."""
        return None

    def cover(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1]: how much of a pixel of the picture an overlay covers; by default all of it."""
        return np.ones(decoded.shape[-2:], np.float32)

    def over_colour(self, decoded: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8: the colours that an overlay covers the picture with; by default those of :meth:`paint`."""
        return self.paint(decoded)

    def scale(self) -> tuple[str, str] | None:
        """What the colour scale begins and ends with, dark violet and yellow, for legends; None: the map has none."""
        return None


def one_channel(values: np.ndarray) -> np.ndarray:
    """(H, W) or (1, H, W) → (H, W) float32, of a map or a target of one number a pixel."""
    return values.astype(np.float32).reshape(values.shape[-2:])
