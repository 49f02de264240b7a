"""Which series of a folder are its pictures: by the usual names, else by what the files hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from garnish.data.guessing.measuring import change_share
from garnish.data.guessing.series import FileSeries
from garnish.data.guessing.words import is_view, meaning_of, picture_rank
from garnish.data.labels.planes import is_coloured
from garnish.errors import DataError
from garnish.files.label_files import lossy_compression, read_array
from garnish.files.pictures import PICTURE_SUFFIXES

#: Files of a series that are opened to see whether they are photographs.
_OPENED = 3


def picture_candidates(series: Sequence[FileSeries], root: Path) -> list[FileSeries]:
    """The series that may be the pictures, those first that most likely are; empty: there is none.

    More than one is returned where all but the first have the same rank as it, or are to be told as left out: a caller
    compares :func:`~garnish.data.guessing.words.picture_rank` of their patterns.
    """
    named = [(rank, one) for one in series if (rank := picture_rank(one.pattern)) is not None]
    if named:
        # of folders of one rank, the one with more files; arrays are pictures only where a word says so
        named.sort(key=lambda pair: (pair[0], not pair[1].has_split, -pair[1].count, pair[1].pattern))
        return [one for _, one in named]
    unnamed = [
        one
        for one in series
        if meaning_of(one.pattern) is None and not is_view(one.pattern) and one.endings[0].lower() in PICTURE_SUFFIXES
    ]
    return [one for one in unnamed if looks_like_photographs(one, root)]


def looks_like_photographs(series: FileSeries, root: Path) -> bool:
    """Whether the files of a series are photographs or renderings rather than labels: many levels, busy, in colour."""
    files = [file for names in series.names.values() for file in names.values()]
    votes = [_is_photograph(root / file) for file in files[:: max(1, len(files) // _OPENED)][:_OPENED]]
    return sum(votes) * 2 > len(votes)


def _is_photograph(file: Path) -> bool:
    try:
        raw = read_array(file)
    except DataError:
        return lossy_compression(file) is not None  # CMYK and alpha are refused as labels
    if raw.dtype != np.uint8 or raw.size == 0:
        return False
    if not is_coloured(raw):
        plane = raw[..., 0] if raw.ndim == 3 else raw
        return lossy_compression(file) is not None and len(np.unique(plane)) > 64 and change_share([plane]) > 0.4
    if _unit_vectors(raw):
        return False
    codes = raw.astype(np.int64) @ np.array([65536, 256, 1])
    many = len(np.unique(codes)) > min(256, 0.3 * codes.size)
    return many and (lossy_compression(file) is not None or change_share([codes]) > 0.3)


def _unit_vectors(raw: np.ndarray) -> bool:
    """Whether nearly all pixels are vectors of length 1, as in a map of normals."""
    vectors = raw[(raw != 0).any(-1)].astype(np.float64) * (2 / 255) - 1
    return bool(len(vectors)) and float((np.abs(np.linalg.norm(vectors, axis=-1) - 1) < 0.03).mean()) > 0.9
