"""Outlines of the regions of an id map: rings along the borders of pixels, with holes, exact to the pixel.

A region is a set of pixels of one id that are joined by their sides. Points are (x, y) in pixels from the picture's
upper left corner, so the first pixel spans 0 to 1; outer rings turn right (clockwise as shown), holes left.

Shape letters: H W pixels, P pixels in all, E sides of pixels on a border, K regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int32]
#: The sides of a pixel, top, right, bottom, left: the way along each with the pixel at the right hand, the way outward,
#: and the corner where each begins; as (row, column).
_ALONG = ((0, 1), (1, 0), (0, -1), (-1, 0))
_OUTWARD = ((-1, 0), (0, 1), (1, 0), (0, -1))
_BEGINS = ((0, 0), (0, 1), (1, 1), (1, 0))


@final
class Region(NamedTuple):
    """One region of a map.

    Attributes:
        id: of its pixels.
        area: number of pixels.
        outer: (N, 2) x and y of its outer ring's corners; the last is joined to the first.
        holes: rings of what it encloses.
    """

    id: int
    area: int
    outer: Points
    holes: tuple[Points, ...]


def regions(ids: NDArray[np.uint8], count: int) -> list[Region]:
    """All regions of the ids below ``count``, by their first pixel from the top.

    No ring crosses or touches itself along a side; rings of one region may touch at a corner.
    """
    owner = region_roots(ids)
    inside = ids < count
    found: dict[int, tuple[list[Points], list[Points]]] = {}
    for pixel, area, ring in _rings(owner, inside):
        outer, holes = found.setdefault(int(owner.flat[pixel]), ([], []))
        (outer if area > 0 else holes).append(ring)
    areas = np.bincount(owner.ravel())
    return [
        Region(int(ids.flat[k]), int(areas[k]), outer[0], tuple(holes)) for k, (outer, holes) in sorted(found.items())
    ]


def region_roots(ids: NDArray[np.integer]) -> NDArray[np.int64]:
    """(H, W): for each pixel the first pixel, counted row by row, of those of its id that sides join it to."""
    height, width = ids.shape
    starts = np.ones((height, width), bool)
    starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
    run = (np.cumsum(starts) - 1).reshape(height, width)  # of each pixel: which run of equal ids in its row
    same = ids[1:] == ids[:-1]
    above, below = run[:-1][same], run[1:][same]
    new = np.ones(len(above), bool)
    new[1:] = (above[1:] != above[:-1]) | (below[1:] != below[:-1])
    above, below = above[new], below[new]
    root = np.arange(run[-1, -1] + 1)
    while True:
        one, other = root[above], root[below]
        apart = one != other
        if not apart.any():
            break
        np.minimum.at(root, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
        while not np.array_equal(further := root[root], root):
            root = further
    first: NDArray[np.int64] = np.flatnonzero(starts)[root[run]]
    return first


def _rings(owner: NDArray[np.int64], inside: NDArray[np.bool_]) -> Iterator[tuple[int, int, Points]]:
    """Each ring: a pixel of its region, as an index into the flat map; its area, below 0 of a hole; its corners."""
    height, width = owner.shape
    padded = np.full((height + 2, width + 2), -1, np.int64)
    padded[1:-1, 1:-1] = owner
    sides = []  # (4, P): whether the side of a pixel lies on a border
    for down, right in _OUTWARD:
        beyond = padded[1 + down : height + 1 + down, 1 + right : width + 1 + right]
        sides.append(((beyond != owner) & inside).ravel())
    edges = np.flatnonzero(np.concatenate(sides))  # E numbers: side · P + pixel
    if not len(edges):
        return
    pixels = height * width
    side, pixel = np.divmod(edges, pixels)
    row, column = np.divmod(pixel, width)
    along, outward = np.array(_ALONG), np.array(_OUTWARD)
    down, right = along[side].T
    ahead = pixel + down * width + right
    left = ahead + outward[side, 0] * width + outward[side, 1]
    own = padded[row + 1, column + 1]
    turns_left = padded[row + 1 + down + outward[side, 0], column + 1 + right + outward[side, 1]] == own
    goes_on = ~turns_left & (padded[row + 1 + down, column + 1 + right] == own)
    following = np.where(
        turns_left,
        (side - 1) % 4 * pixels + left,
        np.where(goes_on, side * pixels + ahead, (side + 1) % 4 * pixels + pixel),
    )
    after = np.searchsorted(edges, following).tolist()
    begins = np.array(_BEGINS)[side] + np.stack([row, column], 1)
    points, ways = begins[:, ::-1].astype(np.int32), side.tolist()
    under = (points[:, 0] * np.array([0, 1, 0, -1])[side]).tolist()  # what each side adds to its ring's area
    seen = bytearray(len(edges))
    for start in range(len(edges)):
        if seen[start]:
            continue
        corners, edge, before, area = [], start, -1, 0
        while not seen[edge]:
            seen[edge] = 1
            if ways[edge] != before:
                corners.append(edge)
            area += under[edge]
            before, edge = ways[edge], after[edge]
        if len(corners) > 1 and ways[corners[0]] == before:
            del corners[0]  # the walk began in the middle of a straight line
        yield int(pixel[start]), area, points[corners]


def one_ring(region: Region) -> Points:
    """(N, 2): one ring of the same area, for formats that know no holes: seams of no width lead to each hole and back.

    A reader that fills by the even-odd rule, or by winding, leaves the holes out.
    """
    ring = region.outer
    for hole in sorted(region.holes, key=lambda points: (int(points[:, 1].min()), int(points[:, 0].min()))):
        first = int(np.lexsort((hole[:, 0], hole[:, 1]))[0])  # the leftmost of its topmost corners
        x, y = hole[first]
        (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
        across = (y0 == y1) & (y0 <= y) & (np.minimum(x0, x1) <= x) & (x <= np.maximum(x0, x1))
        at = int(np.where(across, y0, -1).argmax())  # the nearest line above it, of a ring that is joined already
        door = np.array([[x, ring[at, 1]]], ring.dtype)
        ring = np.concatenate(
            [ring[: at + 1], door, np.roll(hole, -first, axis=0), hole[first : first + 1], door, ring[at + 1 :]]
        )
    return ring
