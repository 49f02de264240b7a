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

    A seam goes up from the leftmost of a hole's topmost corners to the nearest line above. A reader that fills by the
    even-odd rule, or by winding, leaves the holes out.
    """
    if not region.holes:
        return region.outer
    points = np.concatenate([region.outer, *region.holes])
    ends = np.cumsum([len(ring) for ring in (region.outer, *region.holes)])
    begins = np.array([0, *ends[:-1]])
    firsts, lines = _seams(points, begins, ends)
    doors = np.stack([points[firsts, 0], points[lines, 1]], 1)
    # holes behind each line, in the order in which it is walked: all to the right, or all to the left
    holes_at: dict[int, list[int]] = {}
    following = _following(begins, ends)
    ways = np.sign(points[following[lines], 0] - points[lines, 0])
    for hole in np.lexsort((doors[:, 0] * ways, lines)).tolist():
        holes_at.setdefault(int(lines[hole]), []).append(hole)

    def walked(ring: int, first: int) -> Iterator[tuple[int, int]]:
        """(corner, -1) or (-1, hole) along a ring, from its first corner."""
        for corner in (*range(first, int(ends[ring])), *range(int(begins[ring]), first)):
            yield corner, -1
            for hole in holes_at.get(corner, ()):
                yield -1, hole

    found: list[int] = []  # corners, and doors behind the last of them
    under_way, entered = [walked(0, 0)], [-1]
    while under_way:
        corner, hole = next(under_way[-1], (-1, -1))
        if corner >= 0:
            found.append(corner)
        elif hole >= 0:
            found.append(len(points) + hole)
            under_way.append(walked(hole + 1, int(firsts[hole])))
            entered.append(hole)
        else:
            under_way.pop()
            if (left := entered.pop()) >= 0:
                found += [int(firsts[left]), len(points) + left]
    return np.concatenate([points, doors.astype(points.dtype)])[found]


def _following(begins: NDArray[np.integer], ends: NDArray[np.integer]) -> NDArray[np.integer]:
    """Of each corner the one behind it, of rings that lie behind one another."""
    following = np.arange(1, int(ends[-1]) + 1)
    following[ends - 1] = begins
    return following


def _seams(
    points: Points, begins: NDArray[np.integer], ends: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Of each hole: the leftmost of its topmost corners, and the corner where the nearest line above that begins.

    Lines are cut into pieces of one pixel and sorted by column and row, so that all seams are found at once.
    """
    x, y = points.astype(np.int64).T
    ring = np.repeat(np.arange(len(ends)), ends - begins)
    firsts = np.lexsort((x, y, ring))[begins[1:]]
    further = x[_following(begins, ends)]
    lines = np.flatnonzero(further != x)
    widths = np.abs(further - x)[lines]
    line = np.repeat(lines, widths)
    column = np.minimum(x, further)[line] + np.arange(len(line)) - np.repeat(np.cumsum(widths) - widths, widths)
    tall = int(y.max()) + 1
    places = column * tall + y[line]
    order = np.argsort(places)
    above = np.searchsorted(places[order], x[firsts] * tall + y[firsts]) - 1
    return firsts, line[order[above]]
