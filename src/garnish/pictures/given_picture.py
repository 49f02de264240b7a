"""Pictures of any bands as callers give them, as values that models take, and as colours to be looked at.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from garnish.errors import DataError
from garnish.files.band_names import misplaced_band
from garnish.files.given_pictures import no_picture
from garnish.pictures.bands import Bands
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import RasterFacts

#: Modes of Pillow's pictures whose numbers are what they show.
_MODES = ("L", "LA", "RGB", "RGBA", "I", "I;16", "F")


def stored_numbers(
    picture: str | Path | Image.Image | np.ndarray, bands: Bands, where: str
) -> tuple[np.ndarray, Bands]:
    """(H, W, C) numbers as a file holds them, and the bands that read them.

    Those differ from the given ones where a file says which number means "no data", and the given ones do not.

    Args:
        picture: a file; an array (H, W, C), of one band also (H, W); or a PIL image, turned as its camera says.
        bands: that it has.
        where: the picture, for messages.

    Raises:
        DataError: other bands, or bands that a file names in another order; an array of other axes or without pixels; a
            palette; a file that cannot be read. MissingExtraError: reading it takes a library that is not installed.
    """
    if isinstance(picture, str | Path):
        return _of_file(Path(picture), bands)
    if isinstance(picture, Image.Image):
        if picture.mode not in _MODES:
            raise DataError(
                f"{where}: pictures of mode {picture.mode} hold no numbers of bands; give an array (H, W, C)"
            )
        picture = np.asarray(ImageOps.exif_transpose(picture))
    if not isinstance(picture, np.ndarray):
        raise no_picture(picture)
    stored = picture[..., None] if picture.ndim == 2 else picture
    if stored.ndim != 3 or not stored.size or stored.shape[2] != len(bands.names):
        hint = "; give picture.transpose(1, 2, 0)" if stored.ndim == 3 and len(stored) == len(bands.names) else ""
        raise DataError(f"{where}: expected (H, W, {len(bands.names)}), got {picture.shape} {picture.dtype}{hint}")
    return stored, bands


def _of_file(path: Path, bands: Bands) -> tuple[np.ndarray, Bands]:
    with open_raster(path, len(bands.names)) as raster:
        order, found = bands_of_file(path, raster.facts, bands)
        return raster.read()[..., order], found


def bands_of_file(path: Path, facts: RasterFacts, bands: Bands) -> tuple[list[int] | slice, Bands]:
    """Where the bands of a model are among those of a file, and how they are read there.

    Raises:
        DataError: other bands, or bands that a file names in another order.
    """
    own = facts.bands
    if len(own) != len(bands.names):
        raise DataError(f"{path}: {len(own)} bands, and the tasks take {len(bands.names)}: {', '.join(bands.names)}")
    by_name = facts.notes.get("format") == "npz" and set(own) == set(bands.names)
    if not by_name and (swapped := misplaced_band(own, bands.names)):
        raise DataError(
            f"{path}: calls a band {swapped[0]!r} that the model calls {swapped[1]!r}; give its bands in the"
            " order of the model, or correct what the file says"
        )
    order = [own.index(name) for name in bands.names] if by_name else slice(None)
    return order, bands.or_nodata(facts.nodata)


def empty_pixels(values: np.ndarray) -> np.ndarray | None:
    """(H, W) bool, where all of the bands (C, H, W) are NaN, which is no data; None: nowhere."""
    if values.dtype.kind != "f":
        return None
    empty: np.ndarray = np.isnan(values).all(0)
    return empty if empty.any() else None


def in_colour(values: np.ndarray, bands: Bands) -> np.ndarray:
    """Values (C, H, W) of bands as (H, W, 3) uint8 to be looked at; black where there are no data.

    Where red, green and blue are not all there, the first band is shown in grey.
    """
    places = [place for place in bands.rgb if place is not None]
    chosen = values[places if len(places) == 3 else [0, 0, 0]]
    shown = np.clip(np.nan_to_num(chosen.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return np.ascontiguousarray(np.round(shown * 255).astype(np.uint8).transpose(1, 2, 0))
