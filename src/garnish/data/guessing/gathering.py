"""Opening some files of a series for the readers of labels: a few arrays, and the numbers of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from garnish.data.guessing.evidence import MOST_LEVELS, LabelEvidence, Levels
from garnish.data.guessing.name_lists import ClassList
from garnish.data.guessing.series import FileSeries
from garnish.data.labels.planes import is_coloured
from garnish.files.label_files import lossy_compression, read_array
from garnish.files.pictures import opened

#: Most files whose numbers are counted, most arrays that are kept, and most bytes of them.
_MOST_READ, _MOST_KEPT, _MOST_BYTES = 2000, 24, 96 * 2**20


@final
@dataclass(frozen=True)
class _One:
    """The numbers of one file."""

    values: np.ndarray | None
    coloured: bool
    low: float
    high: float
    nan: bool
    infinite: bool


def training_files(series: FileSeries, root: Path, split: str) -> list[Path]:
    """The files of a series of one split, of all if the pattern has no ``{split}``."""
    names = series.names.get(split) or {name: f for found in series.names.values() for name, f in found.items()}
    return [root / file for _, file in sorted(names.items())]


def evidence_of(
    place: str,
    files: Sequence[Path],
    count: int,
    listed: ClassList | None,
) -> LabelEvidence:
    """What the readers are shown of label files that are pictures or arrays.

    Args:
        place: their pattern.
        files: those of the training split; at least one.
        count: how many there are in all.
        listed: names of classes that lie beside them; None: there are none.

    Raises:
        DataError: a file that cannot be read.
    """
    chosen = files[:: math.ceil(len(files) / _MOST_READ)]
    kept: list[Path] = []
    arrays: list[np.ndarray] = []
    size = 0
    for file in chosen[:: math.ceil(len(chosen) / _MOST_KEPT)]:
        raw = read_array(file)
        if arrays and size + raw.nbytes > _MOST_BYTES:
            break
        kept.append(file)
        arrays.append(raw)
        size += raw.nbytes
    with ThreadPoolExecutor(max_workers=4) as pool:
        levels = _joined(list(pool.map(_counted, chosen)))
    return LabelEvidence(
        place=place,
        files=kept,
        count=count,
        arrays=arrays,
        palettes=[_palette(file) for file in kept],
        levels=levels,
        lossy=next((reason for file in kept if (reason := lossy_compression(file))), None),
        listed={} if listed is None else listed.colours,
        numbers={} if listed is None else listed.numbers,
        list_file=None if listed is None else listed.file,
    )


def _counted(file: Path) -> _One:
    raw = read_array(file)
    coloured = is_coloured(raw)
    if raw.size == 0:
        return _One(np.zeros(0, np.int64), False, math.inf, -math.inf, False, False)
    finite = raw[np.isfinite(raw)] if raw.dtype.kind == "f" else raw
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.inf, -math.inf)
    nan = raw.dtype.kind == "f" and bool(np.isnan(raw).any())
    infinite = raw.dtype.kind == "f" and bool(np.isinf(raw).any())
    if coloured and raw.dtype == np.uint8:
        wide = raw.astype(np.int64)
        values = _distinct(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])
    else:
        plane = raw[..., 0] if raw.ndim == 3 and raw.shape[-1] == 3 and not coloured else raw
        whole = plane.dtype.kind in "bui" or (not nan and not infinite and bool((plane == np.floor(plane)).all()))
        values = _distinct(plane.astype(np.int64)) if whole and abs(high) < 2**53 and abs(low) < 2**53 else None
    return _One(values, coloured, low, high, nan, infinite)


def _distinct(values: np.ndarray) -> np.ndarray | None:
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high < 2**24 and high < 64 * values.size + 65536:
        found = np.flatnonzero(np.bincount(values.ravel()))
    else:
        found = np.unique(values)
    return found if len(found) <= MOST_LEVELS else None


def _joined(files: Sequence[_One]) -> Levels:
    values: set[int] | None = set()
    coloured = any(one.coloured for one in files)
    for one in files:
        if values is None or one.values is None:
            values = None
            continue
        found = one.values.tolist()
        # of a folder of colours, a file that is grey holds colours of three equal levels
        grey = coloured and not one.coloured
        values |= {v << 16 | v << 8 | v for v in found if 0 <= v <= 255} if grey else set(found)
        if len(values) > MOST_LEVELS:
            values = None
    return Levels(
        files=len(files),
        values=None if values is None else tuple(sorted(values)),
        coloured=coloured,
        low=min(one.low for one in files),
        high=max(one.high for one in files),
        nan=any(one.nan for one in files),
        infinite=any(one.infinite for one in files),
    )


def _palette(file: Path) -> np.ndarray | None:
    if file.suffix.lower() == ".npy":
        return None
    with opened(file) as (image, _):
        told = image.getpalette("RGB") if image.mode == "P" else None
        if told is None:
            return None
    colours = np.zeros(768, np.uint8)
    colours[: len(told)] = told[:768]
    return colours.reshape(256, 3)
