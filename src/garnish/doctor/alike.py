"""Pictures that are alike: a hash by which they are found among many, and a small copy by which that is confirmed.

The hash has 64 bits: signs of the 64 lowest frequencies (a discrete cosine transform of 32 x 32 grey levels, less the
mean) about their median, as in Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010).
Near-copies (a JPEG of quality 80 of a picture cropped by 2 %) differ from their pictures in 4 bits in the median and
12 at most, the nearest_copies of unrelated photographs of streets, persons, cracks and procedural rooms in 10 at least
(docs/check.md). The small copy decides: what of it another one explains that may be displaced, enlarged, turned or
sheared a little, and brighter.

Shape letters: N pictures, P pairs, S :data:`SIDE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import dctn

from garnish.doctor.looked import Looked

#: Bits by which hashes may differ.
NEAR = 12
#: Side of the small copies.
SIDE = 24
#: Standard deviation of grey levels below which a picture shows too little to be like another.
_FLAT = 3.0
#: Pictures compared with as many others, and pairs of small copies, at a time: some megabytes.
_BLOCK, _PAIRS = 2048, 512


class Likeness(NamedTuple):
    """What is kept of a picture: (64,) int8 bits as -1 and 1, and (S, S) uint8 grey levels."""

    bits: np.ndarray
    levels: np.ndarray


def likeness(seen: Looked) -> Likeness | None:
    """Hash and small copy; None: the picture is flat.

    Raises:
        DataError: the picture cannot be read.
    """
    return seen.once("alike.likeness", lambda: _likeness(Image.fromarray(seen.small).convert("L")))


def _likeness(grey: Image.Image) -> Likeness | None:
    levels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
    if levels.std() < _FLAT:
        return None
    frequencies = dctn(np.asarray(grey.resize((32, 32), Image.Resampling.BOX), np.float32), norm="ortho")
    lowest = frequencies[:9, :9].reshape(-1)[1:65]
    return Likeness(np.where(lowest > np.median(lowest), 1, -1).astype(np.int8), levels)


def nearest_by_hash(bits: np.ndarray, groups: Sequence[slice]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each group of columns: (N,) the picture there whose hash differs least, not the same one; (N,) in how many.

    Differences of two blocks are one product of matrices, since ±1 agree in (64 + product) / 2 bits: 100,000
    pictures take seconds, and memory is that of a block. Hashes that must agree in some part of theirs (a bucket for
    each) would not save much: 12 of 64 bits may differ, so parts are 5 bits and buckets hold a thirtieth of all.

    Args:
        bits: (N, 64) int8, -1 and 1.
        groups: consecutive pictures.
    """
    found = []
    for group in groups:
        columns = bits[group].astype(np.float32)
        where, least = np.zeros(len(bits), np.int64), np.full(len(bits), 64, np.int64)
        for start in range(0, len(bits), _BLOCK):
            rows = bits[start : start + _BLOCK].astype(np.float32)
            for first in range(0, len(columns), _BLOCK):
                differ = (64 - rows @ columns[first : first + _BLOCK].T) / 2
                own = np.arange(start, start + len(rows)) - (group.start + first)
                itself = np.flatnonzero((own >= 0) & (own < differ.shape[1]))
                differ[itself, own[itself]] = 65
                best = differ.argmin(1)
                value = differ[np.arange(len(rows)), best].astype(np.int64)
                better = value < least[start : start + len(rows)]
                least[start : start + len(rows)][better] = value[better]
                where[start : start + len(rows)][better] = group.start + first + best[better]
        found.append((where, least))
    return found


def explained(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(P,) which share of the variance of small copies others explain, from 0 to 1, the lesser of both ways round.

    A small change of place of a picture is its gradient times the displacement, so a least-squares fit of the
    gradients, times 1, x and y, of the copy itself and of a constant allows affine changes and other light.

    Args:
        one: (P, S, S) uint8.
        other: likewise.
    """
    shares = [np.zeros(0)]
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    for start in range(0, len(one), _PAIRS):
        a = one[start : start + _PAIRS].astype(np.float64)
        b = other[start : start + _PAIRS].astype(np.float64)
        down, right = np.gradient((a + b) / 2, axis=(1, 2))
        moves = [right, down, x * right, y * right, x * down, y * down]
        both = []
        for known, wanted in ((a, b), (b, a)):
            basis = np.stack([*moves, known, np.ones_like(a)], -1)[:, 1:-1, 1:-1].reshape(len(a), -1, 8)
            goal = wanted[:, 1:-1, 1:-1].reshape(len(a), -1, 1)
            across = basis.transpose(0, 2, 1)
            fitted = np.linalg.solve(across @ basis + 1e-3 * np.eye(8), across @ goal)
            left = (goal - basis @ fitted)[..., 0].var(1)
            both.append(1 - left / np.maximum(goal[..., 0].var(1), 1e-6))
        shares.append(np.minimum(*both))
    return np.clip(np.concatenate(shares), 0, 1)
