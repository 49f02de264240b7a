"""Maps of classes as COCO's JSON (Lin et al. 2014, "object detection" format): polygons, boxes and areas of regions.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from garnish.checking.plain_data import Json
from garnish.drawing.outlines import one_ring, regions


def coco_of(
    maps: Mapping[str, tuple[np.ndarray, tuple[str, ...]]], file_name: str, size: tuple[int, int]
) -> dict[str, Json]:
    """The file of one picture, ready for ``json.dumps``.

    An annotation is one region: pixels of one class that are joined by their sides. COCO's polygons know no holes, and
    readers fill each ring of an annotation; so a region with holes is one ring, with seams of no width to each hole.
    Corners lie on the borders of pixels: the polygon's area is the number of pixels, which ``area`` says too.

    Args:
        maps: task → (H, W) uint8 ids and the name of each; ids without a name are no class.
        file_name: of the picture.
        size: (H, W).
    """
    categories: list[Json] = []
    annotations: list[Json] = []
    for task, (ids, names) in maps.items():
        first = len(categories) + 1
        categories += [{"id": first + k, "name": name, "supercategory": task} for k, name in enumerate(names)]
        for region in regions(ids, len(names)):
            (left, top), (right, bottom) = region.outer.min(0).tolist(), region.outer.max(0).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": first + region.id,
                    "segmentation": [one_ring(region).ravel().tolist()],
                    "area": region.area,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    image: Json = {"id": 1, "file_name": file_name, "width": size[1], "height": size[0]}
    return {"images": [image], "categories": categories, "annotations": annotations}
