"""``Change``: what was drawn for one training picture, and which part of it that needs.

Shape letters: H W pixels of the picture, h w of the resized one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from garnish.data.window_resize import Span

#: Pixels around what a rotation reads: one for bilinear interpolation, one for rounding.
_MARGIN = 2


@final
@dataclass(frozen=True)
class Change:
    """One random change of a picture, in the order of its steps.

    Attributes:
        scaled: (h, w) to which the picture is resized.
        degrees: of the rotation about the centre of that, counter-clockwise.
        top, left: of the crop, in pixels of the resized picture; it may reach outside.
        size: (height, width) of the crop.
        flips: whether left and right are exchanged then.
        factors: of brightness, contrast and saturation.
    """

    scaled: tuple[int, int]
    degrees: float
    top: int
    left: int
    size: tuple[int, int]
    flips: bool
    factors: tuple[float, ...]

    def moved(self, place: tuple[float, float]) -> tuple[float, float]:
        """Row and column of the resized picture → where rotation brings them."""
        c, s = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        y, x = place[0] - self.scaled[0] / 2, place[1] - self.scaled[1] / 2
        return self.scaled[0] / 2 + c * y - s * x, self.scaled[1] / 2 + s * y + c * x

    def box(self) -> tuple[Span, Span]:
        """Rows and columns of the resized picture of which the crop is made: itself, and what rotation brings in."""
        (top, left), (height, width) = (self.top, self.left), self.size
        ys, xs = [float(top), float(top + height)], [float(left), float(left + width)]
        if self.degrees:
            c, s = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
            middle_y, middle_x = self.scaled[0] / 2, self.scaled[1] / 2
            # where a corner of the crop lies in the picture before it was rotated (y points down)
            corners = [(y - middle_y, x - middle_x) for y in (top, top + height) for x in (left, left + width)]
            ys += [middle_y + c * y + s * x + side for y, x in corners for side in (-_MARGIN, _MARGIN)]
            xs += [middle_x + c * x - s * y + side for y, x in corners for side in (-_MARGIN, _MARGIN)]
        return _within(ys, self.scaled[0]), _within(xs, self.scaled[1])


def _within(places: list[float], length: int) -> Span:
    """The whole rows that hold all places, within the picture; the nearest one where all lie outside."""
    first = min(max(math.floor(min(places)), 0), length - 1)
    return Span(first, max(min(math.ceil(max(places)), length), first + 1))
