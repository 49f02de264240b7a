"""Reading one picture of a data set: 8-bit RGB as it is, other bands as the numbers that models take.

Shape letters: H W pixels, C bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision import tv_tensors

from garnish.errors import DataError
from garnish.files.band_names import RED_GREEN_BLUE, SENTINEL, misplaced_band
from garnish.files.pictures import open_picture
from garnish.pictures.band_files import BandFiles
from garnish.pictures.bands import Bands
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import RasterFacts, Window

#: Suffixes that are read as numbers even where bands are those of an ordinary picture.
_ARRAYS = (".npy", ".npz")


def read_image(files: Sequence[Path], bands: Bands, window: Window | None = None) -> tuple[tv_tensors.Image, int]:
    """The picture in a file, or in one file a band, and its EXIF orientation (1 where it is not told).

    Returns:
        (3, H, W) uint8 where ``bands`` are those of an ordinary picture, else (C, H, W) float32, NaN where there is no
        data. Where ``bands`` name no number for that, the file's own one is taken.

    Raises:
        DataError: a file that cannot be read, files of different sizes or places, another number of bands, bands that
            the file names in another order, numbers that are infinite or, for 8-bit RGB, of another type.
    """
    if window is None and bands.is_rgb and len(files) == 1 and files[0].suffix.lower() not in _ARRAYS:
        try:
            pixels, facts = open_picture(files[0])
        except DataError as error:
            if files[0].suffix.lower() not in (".tif", ".tiff"):
                raise
            raise DataError(f"{error}; or name its bands: `channels` (docs/data.md)") from error
        return _image(pixels.transpose(2, 0, 1)), facts.orientation
    if len(files) > 1:
        with BandFiles(dict(zip(bands.names, files, strict=True))):
            pass  # which refuses other sizes and places; files of other types are read each by its own
    parts = [
        _stored(path, bands.names if len(files) == 1 else bands.names[k : k + 1], bands.names, window)
        for k, path in enumerate(files)
    ]
    if bands.is_rgb:
        for path, (stored, _) in zip(files, parts, strict=True):
            if stored.dtype != np.uint8:
                raise DataError(f"{path}: {stored.dtype} is no 8-bit RGB; state `channels: {{range: [LOW, HIGH]}}`")
        return _image(np.concatenate([stored for stored, _ in parts], -1).transpose(2, 0, 1)), 1
    values = [
        (bands if len(files) == 1 else _one_of(bands, k)).or_nodata(facts.nodata).values(stored, str(path))
        for k, (path, (stored, facts)) in enumerate(zip(files, parts, strict=True))
    ]
    whole = values[0] if len(values) == 1 else np.concatenate(values)
    if np.isinf(whole).any():
        where = files[0] if len(files) == 1 else files[int(np.flatnonzero(np.isinf(whole).any((1, 2)))[0])]
        raise DataError(f"{where}: holds infinite numbers; say that they are no data: `channels: {{nodata: inf}}`")
    return _image(whole), 1


def left_unread(files: Sequence[Path], bands: Bands) -> str:
    """What the header of a picture's files says that ``channels`` do not, and that is not done; empty: nothing.

    Raises:
        DataError: a file that cannot be opened.
    """
    stated = {"scale": bands.scale != 1, "offset": bands.offset != 0}
    for path in files:
        with open_raster(path, len(bands.names) if len(files) == 1 else 1) as raster:
            notes, own = raster.facts.notes, raster.facts.bands
        if told := [f"{name} {notes[name]}" for name in ("scale", "offset") if name in notes and not stated[name]]:
            return (
                f"{path}: says {' and '.join(told)}, which is not applied; state it under `channels` if its numbers are"
                " meant, with a `range` in the same unit"
            )
        pairs = zip(own, bands.names, strict=False) if len(files) == 1 else ()
        colours = [(str(a), b) for a, b in pairs if a in SENTINEL and b in RED_GREEN_BLUE]
        if swapped := [pair for pair in colours if SENTINEL[pair[0]] != pair[1]]:
            called, name = swapped[0]
            return (
                f"{path}: calls a band {called}, in Sentinel-2 {SENTINEL[called]}, that `channels` call {name}; write"
                " the names in the order of the file if the colours are exchanged"
            )
        if "mask" in notes:
            return f"{path}: mask: {notes['mask']}"
    return ""


def _stored(
    path: Path, names: Sequence[str], among: Sequence[str], window: Window | None
) -> tuple[np.ndarray, RasterFacts]:
    """The numbers of a file, (H, W, C), in the order of the bands; an ``.npz`` holds them by name."""
    with open_raster(path, len(names)) as raster:
        facts = raster.facts
        if len(facts.bands) != len(names):
            raise DataError(
                f"{path}: {len(facts.bands)} bands, but `channels` names {len(names)}; name each"
                " (to train on some of them: docs/pictures.md)"
            )
        if facts.notes.get("format") == "npz" and set(facts.bands) == set(names):
            return raster.read(window)[..., [facts.bands.index(name) for name in names]], facts
        if swapped := misplaced_band(facts.bands, names, among):
            raise DataError(
                f"{path}: calls a band {swapped[0]!r} that `channels` call {swapped[1]!r}; write them in the order of"
                " the file, or correct what the file says"
            )
        return raster.read(window), facts


def _one_of(bands: Bands, place: int) -> Bands:
    """What reads the file of one band alone."""

    def at(value: object) -> object:
        return value[place] if isinstance(value, tuple) else value

    several = isinstance(bands.range, tuple) and isinstance(bands.range[0], tuple)
    return Bands(
        names=bands.names[place : place + 1],
        range=bands.range[place if len(bands.range) > 1 else 0] if several else bands.range,  # type: ignore
        scale=at(bands.scale),  # type: ignore[arg-type]
        offset=at(bands.offset),  # type: ignore[arg-type]
        nodata=bands.nodata,
    )


def _image(values: np.ndarray) -> tv_tensors.Image:
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(values)))
