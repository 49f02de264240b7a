"""Shape: one annotated object of a picture, by polygons or by a mask.

Shape letters: K points of a polygon, H W pixels of the picture, h w of a mask's box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np


@final
@dataclass(frozen=True, eq=False)
class Shape:
    """One object. Either ``polygons`` or ``mask`` is given.

    Attributes:
        label: its class as the file names it; its number as text, where the file has only numbers.
        polygons: each (K, 2) float64, x and y in pixels: (0, 0) is the upper left corner of the upper left pixel, whose
            centre is (0.5, 0.5). The object is their union; a polygon that crosses itself is filled by even and odd.
        mask: (h, w) bool, True on the object.
        corner: (top, left) of the mask in the picture, in pixels; may lie outside of it.
        order: objects of a larger number lie above those of a smaller one; of equal ones, later ones lie above.
        crowd: whether it is a crowd of objects that nobody told apart (COCO's ``iscrowd``).
    """

    label: str
    polygons: tuple[np.ndarray, ...] = ()
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    order: float = 0.0
    crowd: bool = False
