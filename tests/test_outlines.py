"""Outlines of regions: filled by GDAL they are the map again, whatever its shape; their areas are counts of pixels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rasterio.features import rasterize

from garnish.decodings.coco import coco_of
from garnish.drawing.outlines import Region, one_ring, region_roots, regions

RING = """
aaaaaaaa
a......a
a.bb.b.a
a.bbb..a
a......a
aaaaaaa.
"""


def drawn(text: str) -> np.ndarray:
    """Letters → ids, in alphabetical order; a dot is 255."""
    letters = sorted(set(text) - set(".\n"))
    rows = [[255 if char == "." else letters.index(char) for char in line] for line in text.split()]
    return np.array(rows, np.uint8)


def filled(rings: list[np.ndarray], size: tuple[int, ...]) -> np.ndarray:
    closed = [[tuple(point) for point in np.vstack([ring, ring[:1]]).tolist()] for ring in rings]
    return rasterize([({"type": "Polygon", "coordinates": closed}, 1)], size[:2]).astype(bool)


def shoelace(ring: np.ndarray) -> float:
    """Area; positive where a ring turns right on a screen."""
    x, y = ring.astype(float).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def of_noise(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    height, width, count = draw.integers(1, 20), draw.integers(1, 20), draw.integers(1, 4)
    ids = draw.integers(0, count + 1, (height, width)).astype(np.uint8)
    ids[ids == count] = 255
    return ids if seed % 2 else np.kron(ids, np.ones((3, 2), np.uint8))


@pytest.mark.parametrize("ids", [drawn(RING), *map(of_noise, range(24))], ids=lambda ids: "x".join(map(str, ids.shape)))
def test_rings_filled_by_gdal_are_the_map(ids):
    again = np.full(ids.shape, 255, np.uint8)
    for region in regions(ids, 4):
        pixels = filled([region.outer, *region.holes], ids.shape)
        assert pixels.sum() == region.area and (again[pixels] == 255).all()
        assert shoelace(region.outer) + sum(map(shoelace, region.holes)) == region.area
        assert shoelace(region.outer) > 0 and all(shoelace(hole) < 0 for hole in region.holes)
        single = one_ring(region)  # for readers that know no holes
        assert (filled([single], ids.shape) == pixels).all() and shoelace(single) == region.area
        again[pixels] = region.id
    assert (again == ids).all()


def test_regions_are_joined_by_sides_and_holes_are_found():
    found = regions(drawn(RING), 2)
    assert [(region.id, region.area, len(region.holes)) for region in found] == [(0, 23, 1), (1, 5, 0), (1, 1, 0)]
    assert found[0].outer.tolist() == [[0, 0], [8, 0], [8, 5], [7, 5], [7, 6], [0, 6]]
    # the corner of the hole that touches the outside: the ring goes round it, and the hole stays a hole
    ids = drawn("aaa\na.a\naa.")
    (only,) = regions(ids, 1)
    assert only == Region(0, 7, only.outer, only.holes) and len(only.holes) == 1 and len(only.outer) == 6


def test_regions_are_those_of_scipy():
    from scipy import ndimage

    for seed in range(6):
        ids = of_noise(seed)
        roots = region_roots(ids)
        for one in np.unique(ids):
            labels, count = ndimage.label(ids == one)
            assert len(np.unique(roots[ids == one])) == count
            pairs = set(zip(labels[ids == one].tolist(), roots[ids == one].tolist(), strict=True))
            assert len(pairs) == count


def test_a_region_of_many_holes_does_not_take_their_square():
    """Joined one by one, the holes of this map took ten seconds of a processor, and of one twice as large a minute."""
    ids = np.zeros((320, 320), np.uint8)
    ids[1::2, 1::2] = 255
    (region,) = regions(ids, 1)
    begun = time.process_time()
    ring = one_ring(region)
    assert time.process_time() - begun < 3
    assert shoelace(ring) == region.area == 320 * 320 - 160 * 160
    assert (filled([ring], ids.shape) == (ids == 0)).all()


def test_coco_of_two_tasks():
    ids = drawn(RING)
    told = coco_of(
        {"seg": (ids, ("a", "b")), "fg": (np.where(ids == 1, 0, 255).astype(np.uint8), ("yes",))}, "p.jpg", (6, 8)
    )
    assert told["images"] == [{"id": 1, "file_name": "p.jpg", "width": 8, "height": 6}]
    assert [(c["id"], c["name"], c["supercategory"]) for c in told["categories"]] == [
        (1, "a", "seg"),
        (2, "b", "seg"),
        (3, "yes", "fg"),
    ]
    assert [a["id"] for a in told["annotations"]] == [1, 2, 3, 4, 5]
    for annotation in told["annotations"]:
        (flat,) = annotation["segmentation"]
        pixels = filled([np.reshape(flat, (-1, 2))], ids.shape)
        assert pixels.sum() == annotation["area"] and annotation["iscrowd"] == 0
        rows, columns = np.nonzero(pixels)
        left, top, width, height = annotation["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        one = {1: 0, 2: 1, 3: 1}[annotation["category_id"]]
        assert (ids[pixels] == one).all()
