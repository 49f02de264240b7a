"""``BandFiles``: one picture of which each band is a file of its own, as satellites' are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import final

import numpy as np

from garnish.errors import DataError
from garnish.pictures.bands import MOST_BANDS
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Georeference, Raster, RasterFacts, Window
from garnish.pictures.reading import checked_window


@final
class BandFiles(Raster):
    """Files of one band each, of one size and one place.

    Numbers of several types become the one that holds all of them (uint8 and uint16: uint16; uint16 and float32:
    float32). What a file says of "not measured" is that of the picture only if all say the same.

    Args:
        files: name of each band → its file, in the order of the bands.

    Raises:
        DataError: no file or too many; a file of several bands; other sizes or places; types that none holds exactly.
        MissingExtraError: a file takes a library that is not installed.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        if not 1 <= len(files) <= MOST_BANDS:
            raise DataError(f"channels: {len(files)} files, one a band; give 1 to {MOST_BANDS}")
        with ExitStack() as stack:
            self._rasters = [stack.enter_context(open_raster(file)) for file in files.values()]
            self.facts = _joined(files, [raster.facts for raster in self._rasters])
            self._path = next(iter(files.values()))
            self._stack = stack.pop_all()

    def read(self, window: Window | None = None) -> np.ndarray:
        """(h, w, C) numbers as the files hold them, upright; None: all of it."""
        dtype = np.dtype(self.facts.dtype)
        window = checked_window(self._path, window, self.facts.size, len(self._rasters), dtype)
        found = np.empty((window.height, window.width, len(self._rasters)), dtype)
        for band, raster in enumerate(self._rasters):
            found[..., band] = raster.read(window)[..., 0]
        return found

    def close(self) -> None:
        """Close the files; may be called again."""
        self._stack.close()


def _joined(files: Mapping[str, Path], facts: list[RasterFacts]) -> RasterFacts:
    first_file, first = next(iter(files.values())), facts[0]
    place = next((each.place for each in facts if each.place), None)
    for (name, file), each in zip(files.items(), facts, strict=True):
        if len(each.bands) != 1:
            raise DataError(f"{file}: holds {len(each.bands)} bands, but is the file of {name} alone; save one band")
        if each.size != first.size:
            sizes = [f"{width}x{height}" for height, width in (each.size, first.size)]
            raise DataError(f"{file}: is {sizes[0]}, but {first_file} is {sizes[1]}; bring all bands to one size")
        if each.place and place and not _same(each.place, place):
            raise DataError(f"{file}: lies at another place than {first_file}; bring all bands to one grid")
    dtypes = [np.dtype(each.dtype) for each in facts]
    whole = np.result_type(*dtypes)
    if not all(np.can_cast(dtype, whole, "safe") for dtype in dtypes) or whole.itemsize > 8 or _rounds(dtypes, whole):
        told = ", ".join(sorted({dtype.name for dtype in dtypes}))
        raise DataError(f"{first_file}: bands of {told}, which no type holds exactly; save all of them as one")
    nodata = {repr(each.nodata) for each in facts}
    notes = {
        name: each.notes.get("format", each.notes.get("compression", ""))
        for name, each in zip(files, facts, strict=True)
    }
    if len(nodata) > 1:
        notes["nodata"] = f"not one for all bands: {', '.join(sorted(nodata))}"
    return RasterFacts(
        size=first.size,
        dtype=whole.name,
        bands=tuple(files),
        nodata=first.nodata if len(nodata) == 1 else None,
        place=place,
        windows=all(each.windows for each in facts),
        notes=notes,
    )


def _rounds(dtypes: list[np.dtype], whole: np.dtype) -> bool:
    """Whether whole numbers of a type become floats that cannot hold them; NumPy calls int64 to float64 safe."""
    return whole.kind == "f" and any(dtype.kind in "ui" and dtype.itemsize >= whole.itemsize for dtype in dtypes)


def _same(one: Georeference, other: Georeference) -> bool:
    """Whether two pictures lie at one place, to a thousandth of a pixel."""
    (a, b, *_), (_, _, *_) = one.transform, other.transform
    pixel = max(abs(a), abs(b))
    differences = np.abs(np.subtract(one.transform, other.transform))
    known = one.crs is None or other.crs is None or one.crs == other.crs
    return bool(known and (differences <= pixel / 1000).all())
