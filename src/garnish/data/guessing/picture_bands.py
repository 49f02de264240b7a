"""Whether the pictures of a folder need ``channels``: they are no 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from garnish.checking.plain_data import Json
from garnish.data.guessing.series import FileSeries
from garnish.errors import DataError, GarnishError
from garnish.files.band_names import SENTINEL
from garnish.files.pictures import PICTURE_SUFFIXES, opened
from garnish.pictures.open_raster import open_raster


def channels_needed(root: Path, pictures: FileSeries, split: str) -> tuple[str, dict[str, Json]] | None:
    """A line and ``channels`` to start from, where the first training picture is no 8-bit RGB; None: it is.

    The bands are called as the file calls them, where it names each.
    """
    names = pictures.names.get(split) or next(iter(pictures.names.values()))
    there = [root / file for _, file in sorted(names.items())]
    first = next((path for path in there if path.suffix.lower() in PICTURE_SUFFIXES), there[0])
    refused = "an array"
    if first.suffix.lower() in PICTURE_SUFFIXES:
        try:
            with opened(first) as (_, facts):
                refused = facts.refused(label=False) or ""
        except DataError:  # of bands that no ordinary reader knows, or damaged, which is told where it is read
            refused = "" if _channels(first) is None else "of other bands"
    if not refused:
        return None
    told = _channels(first) or {"names": 4, "range": [0, 10000]}
    return f"{first} is no 8-bit RGB ({refused})", told


def _channels(path: Path) -> dict[str, Json] | None:
    """What ``channels`` may say of a file, as far as its header tells; None: damaged, or a library is missing."""
    try:
        with open_raster(path) as raster:
            own, kind = raster.facts.bands, np.dtype(raster.facts.dtype)
    except GarnishError:
        return None
    called = [name for name in own if name]
    names: Json = called if len(set(called)) == len(own) else len(own)
    if kind == np.uint8:
        return {"names": names}
    return {"names": names, "range": [0, 1 if kind.kind == "f" else 10000]}


def about_channels(channels: dict[str, Json]) -> str:
    """What a person is to look at in guessed ``channels``, for a comment beside them."""
    told = [] if "range" not in channels else ["range is not known from one file: write the ends of what you measured"]
    names = channels["names"]
    if isinstance(names, list) and (
        there := [f"{name} {colour}" for name, colour in SENTINEL.items() if name in names]
    ):
        told.append(f"in Sentinel-2 {', '.join(there)}: call them so, and what the trunk learnt of colours is used")
    return "; ".join(told)
