"""The ids or colours of label files as they are stored, and what pixels and regions they have.

Shape letters: H W pixels, C channels of the file, n runs of equal pixels in rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from garnish.doctor.looked import Looked
from garnish.targets.class_ids import ClassIds
from garnish.targets.yes_or_no import YesOrNo

#: Suffixes of label files that hold a number or a colour for each pixel, and may have been resized or compressed.
_BY_PIXEL = (".png", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".webp", ".npy")
#: Bumps beside pixels that lie between their neighbours, from which on a label was compressed: JPEG of quality 75
#: leaves 0.15 to 0.3, interpolation 0 to 0.04.
BUMPS = 0.08


def is_exact(seen: Looked, task: str) -> bool:
    """Whether a task's labels are ids, colours or yes and no, that must be exact to mean what they should."""
    kind, reader = seen.task(task).target, seen.reader(task)
    return (kind is ClassIds and reader.exact) or (
        kind is YesOrNo and (reader.exact or getattr(reader, "threshold", 0) is None)
    )


def stored_codes(seen: Looked, task: str) -> np.ndarray | None:
    """(H, W) ids or (H, W, 3) colours as the file holds them; None: no such file, or it cannot be read."""
    return seen.once(("label_codes.stored", task), lambda: _stored(seen, task))


def _stored(seen: Looked, task: str) -> np.ndarray | None:
    if task not in seen.files or seen.files[task].suffix.lower() not in _BY_PIXEL:
        return None
    stored = seen.stored(task)
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "ui" or min(stored.shape, default=0) < 1:
        return None
    if stored.ndim == 3 and stored.shape[-1] == 3:
        same = (stored[..., 0] == stored[..., 1]).all() and (stored[..., 0] == stored[..., 2]).all()
        return np.ascontiguousarray(stored[..., 0]) if same else stored
    return stored if stored.ndim == 2 else None


def numbered_codes(seen: Looked, task: str) -> np.ndarray | None:
    """(H, W) :func:`packed_codes` of :func:`stored_codes`; None as there."""

    def packed() -> np.ndarray | None:
        codes = stored_codes(seen, task)
        return None if codes is None else packed_codes(codes)

    return seen.once(("label_codes.packed", task), packed)


def packed_codes(codes: np.ndarray) -> np.ndarray:
    """(H, W) one whole number for each id or colour."""
    if codes.ndim == 2:
        return codes
    wide = codes.astype(np.int64)
    packed: np.ndarray = wide[..., 0] << 32 | wide[..., 1] << 16 | wide[..., 2]
    return packed


@final
@dataclass(frozen=True, eq=False)
class ConnectedRegions:
    """The regions of equal values in a map, whose pixels touch at sides or corners.

    Attributes:
        sizes: pixels of each region.
        values: value of each region.
        of_run: (n,) region of each run, in the order of pixels.
        lengths: (n,) pixels of each run.
        shape: (H, W).
    """

    sizes: np.ndarray
    values: np.ndarray
    of_run: np.ndarray
    lengths: np.ndarray
    shape: tuple[int, int]

    def sizes_by_pixel(self) -> np.ndarray:
        """(H, W) size of the region that each pixel belongs to."""
        return np.repeat(self.sizes[self.of_run], self.lengths).reshape(self.shape)


def connected_regions(values: np.ndarray) -> ConnectedRegions:
    """Find the regions of (H, W) values: runs of rows, joined where two of adjacent rows touch."""
    height, width = values.shape
    begins = np.ones((height, width), bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=height * width)
    of_runs = values.ravel()[starts]
    # of the row below: the first and the last run that a run touches, by corners too, but not of another row
    left = np.where(starts % width > 0, starts - 1, starts) + width
    ends = starts + lengths - 1
    right = np.where((ends + 1) % width > 0, ends + 1, ends) + width
    above = np.flatnonzero(right < height * width)
    first = np.searchsorted(starts, left[above], side="right") - 1
    counts = np.searchsorted(starts, right[above], side="right") - first
    upper = np.repeat(above, counts)
    lower = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    same = of_runs[upper] == of_runs[lower]
    upper, lower = upper[same], lower[same]
    graph = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(len(starts), len(starts)))
    count, of_run = connected_components(graph, directed=False)
    sizes = np.bincount(of_run, weights=lengths, minlength=count).astype(np.int64)
    found = np.zeros(count, of_runs.dtype)
    found[of_run] = of_runs
    return ConnectedRegions(sizes, found, of_run, lengths, (height, width))


@final
@dataclass(frozen=True)
class BorderFacts:
    """What lies along the borders of a map.

    Attributes:
        pixels: of the map.
        borders: pairs of neighbours of different values.
        thin: pixels that differ from both neighbours in a row or a column, which differ from each other.
        between: those of them whose value lies between these.
        bumps: pixels that differ from both neighbours in a row or a column, which are alike. Interpolation leaves
            stairs that lead one way; compression leaves bumps too.
    """

    pixels: int
    borders: int
    thin: int
    between: int
    bumps: int


def border_facts(seen: Looked, task: str) -> BorderFacts | None:
    """Count along the borders of a label of exact numbers; None: the file holds none, or cannot be read."""

    def count() -> BorderFacts | None:
        codes, packed = stored_codes(seen, task), numbered_codes(seen, task)
        if codes is None or packed is None:
            return None
        across, down = packed[:, 1:] != packed[:, :-1], packed[1:] != packed[:-1]
        bumps = across[:, 1:] & (packed[:, 2:] == packed[:, :-2]), down[1:] & (packed[2:] == packed[:-2])
        thin, between = between_neighbours(codes)
        return BorderFacts(packed.size, _count(across, down), _count(thin), _count(between), _count(*bumps))

    return seen.once(("borders", task), count) if is_exact(seen, task) else None


def _count(*pixels: np.ndarray) -> int:
    return sum(int(np.count_nonzero(some)) for some in pixels)


def between_neighbours(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that differ from both neighbours in their row or in their column, which differ from each other.

    Returns:
        (H, W) bool: all of these; and of these the ones whose number, or every channel of whose colour, lies within
        those of both neighbours, as where a file of ids was resized with interpolation.
    """
    flat = packed_codes(codes)
    thin, inner = np.zeros(flat.shape, bool), np.zeros(flat.shape, bool)
    for across in (0, 1):
        down = 1 - across
        height, width = flat.shape[0] - down, flat.shape[1] - across
        changes = flat[down:, across:] != flat[:height, :width]
        both = changes[down:, across:] & changes[: height - down, : width - across]
        rows, columns = np.divmod(np.flatnonzero(both), max(both.shape[1], 1))  # faster than nonzero along two axes
        apart = flat[rows, columns] != flat[rows + 2 * down, columns + 2 * across]
        rows, columns = rows[apart], columns[apart]
        left, middle, right = (codes[rows + k * down, columns + k * across].astype(np.int64) for k in range(3))
        within = (np.minimum(left, right) <= middle) & (middle <= np.maximum(left, right))
        within = within.all(-1) if within.ndim == 2 else within
        rows, columns = rows + down, columns + across
        thin[rows, columns] = True
        inner[rows[within], columns[within]] = True
    return thin, inner


def lonely(codes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(H, W) bool: those of some pixels whose connected region of one value holds, for the most part, such pixels."""
    regions = connected_regions(packed_codes(codes))
    of_pixel = np.repeat(regions.of_run, regions.lengths).reshape(regions.shape)
    inside = np.bincount(of_pixel[chosen], minlength=len(regions.sizes))
    mostly: np.ndarray = chosen & (2 * inside > regions.sizes)[of_pixel]
    return mostly
