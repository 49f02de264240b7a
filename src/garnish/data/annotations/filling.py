"""Filling polygons: a pixel belongs to a polygon where its centre lies inside.

Shape letters: K points of a polygon, H W pixels of the picture, h w of a box in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Farthest coordinate, in pixels: beyond it a number is damage, as pictures have at most 65,535 pixels a side.
FARTHEST = 2.0**24
#: Places where outlines cross rows that are looked at together; it bounds memory, not results.
_TOGETHER = 1 << 20
#: Most of these places of one outline but for one a point; scribbles have some thousands.
_MOST_CROSSINGS = 1 << 24


def fill_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The pixels of a picture whose centre lies in one of several polygons.

    A polygon is filled by even and odd: a centre is inside if a ray from it crosses the outline an odd number of times.
    Centres on the outline belong to it where it lies to their right or below, so that of two polygons with a common
    edge exactly one has them. What lies outside of the picture is left out. The time grows with the rows that edges
    cross within the picture, and with the box that is filled.

    Args:
        polygons: each (K, 2) float64, x and y in pixels; the centre of the upper left pixel is (0.5, 0.5). Their last
            point is joined to their first.
        size: (H, W).

    Returns:
        (h, w) bool of the box around the polygons, and its (top, left); a box of no pixels if all are outside.

    Raises:
        ValueError: coordinates that are not finite or beyond :data:`FARTHEST`, or an outline that crosses rows more
            often than its box has pixels; the text is a reason, without the file.
    """
    boxes = [_box(points, size) for points in polygons]
    there = [k for k, (top, left, low, right) in enumerate(boxes) if top < low and left < right]
    if not there:
        return np.zeros((0, 0), bool), (0, 0)
    top, left = (min(boxes[k][side] for k in there) for side in (0, 1))
    low, right = (max(boxes[k][side] for k in there) for side in (2, 3))
    if len(there) == 1:
        return _filled(polygons[there[0]], boxes[there[0]]), (top, left)
    mask = np.zeros((low - top, right - left), bool)
    for k in there:
        t, l, b, r = boxes[k]
        mask[t - top : b - top, l - left : r - left] |= _filled(polygons[k], boxes[k])
    return mask, (top, left)


def _box(points: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the pixels that a polygon may have within the picture."""
    if not len(points):
        return 0, 0, 0, 0
    low, high = points.min(0), points.max(0)
    if not all(map(math.isfinite, (*low, *high))):
        raise ValueError("a coordinate is not finite")
    far = max(float(-low.min()), float(high.max()))
    if far > FARTHEST:
        raise ValueError(f"a coordinate of {far:g} pixels lies beyond all pictures")
    top, left = max(math.floor(low[1]), 0), max(math.floor(low[0]), 0)
    return top, left, min(math.ceil(high[1]), size[0]), min(math.ceil(high[0]), size[1])


def _filled(points: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """(h, w) bool of a polygon in its box."""
    top, left, bottom, right = box
    height, width = bottom - top, right - left
    after = np.roll(points, -1, 0)
    downward = (points[:, 1] <= after[:, 1])[:, None]
    # from the upper end, whichever way the outline runs: neighbours then have the same crossings on a common edge
    upper, lower = np.where(downward, points, after), np.where(downward, after, points)
    first = np.maximum(np.ceil(upper[:, 1] - 0.5).astype(np.int64), top)
    count = np.maximum(np.minimum(np.ceil(lower[:, 1] - 0.5).astype(np.int64), bottom) - first, 0)
    crossing = np.flatnonzero(count)
    upper, lower, first, count = upper[crossing], lower[crossing], first[crossing], count[crossing]
    total = int(count.sum())
    if total > min(4 * height * width, _MOST_CROSSINGS) + len(points) + (1 << 16):
        raise ValueError(f"its outline crosses rows {total:,} times in a box of {width}x{height} pixels")
    slope = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])
    ends = np.cumsum(count)
    flips = [np.zeros(0, np.int64)]
    done = 0
    while done < len(count):
        until = max(int(np.searchsorted(ends, ends[done] - count[done] + _TOGETHER, "right")), done + 1)
        edge = np.repeat(np.arange(done, until), count[done:until])
        rows = np.arange(len(edge)) + (ends[done] - count[done]) - (ends - count - first)[edge]
        at = upper[edge, 0] + (rows + 0.5 - upper[edge, 1]) * slope[edge]
        columns = np.minimum(np.maximum(np.ceil(at - 0.5), left), right).astype(np.int64)
        flips.append((rows - top) * width + columns - left)
        done = until
    # every row has an even number of them, so that rows need not be told apart
    places = np.sort(np.concatenate(flips))
    lengths = np.diff(places, prepend=0, append=height * width)
    inside = np.zeros(len(lengths), bool)
    inside[1::2] = True
    return np.repeat(inside, lengths).reshape(height, width)
