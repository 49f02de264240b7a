"""``TrainedScale``: how large the pictures were that something was trained on, as its bundle tells it.

Shape letters: H W pixels of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from garnish.checking.bounds import Size
from garnish.checking.plain_data import Json, fits
from garnish.errors import DataError

#: Zooms of a recipe that names a size and no scale, as :class:`garnish.data.augment.Augment` has it.
USUAL_ZOOM = (0.75, 1.5)
_MOST_ZOOM = 16.0


@final
@dataclass(frozen=True)
class TrainedScale:
    """The size of training pictures, and the range of the random zoom around it.

    Attributes:
        size: (height, width) that a picture just covered at zoom 1; None: pictures had their own size there.
        zoom: lowest and highest zoom.
    """

    size: tuple[int, int] | None = None
    zoom: tuple[float, float] = (1.0, 1.0)

    def of(self, own: tuple[int, int], where: str = "size: train") -> tuple[int, int]:
        """(H, W) of a picture → the size at which training saw it whole: aspect kept, nothing cropped.

        At zoom 1, or in the middle of the range where 1 lies outside of it.

        Raises:
            DataError: larger than any picture may be, of one that is very long and thin.
        """
        low, high = self.zoom
        factor = 1.0 if low <= 1 <= high else math.sqrt(low * high)
        if self.size is not None:
            factor *= max(self.size[0] / own[0], self.size[1] / own[1])
        found = (max(round(own[0] * factor), 1), max(round(own[1] * factor), 1))
        if not fits(found, Size):
            raise DataError(
                f"{where}: {own[1]}x{own[0]} pixels become {found[1]}x{found[0]}, as {self.told}; give a size as H,W"
            )
        return found

    @property
    def told(self) -> str:
        """How training scaled, in words."""
        low, high = self.zoom
        middle = "" if low <= 1 <= high else f" times {math.sqrt(low * high):.3g}"
        if self.size is None:
            return f"training saw pictures at their own size{middle}"
        return f"training saw pictures that just covered {self.size[0]},{self.size[1]}{middle}"

    def facts(self) -> dict[str, Json]:
        """As a bundle holds it; :func:`scale_of_facts` reads it."""
        return {"size": None if self.size is None else list(self.size), "scale": list(self.zoom)}


def scale_of_facts(found: Json) -> TrainedScale | None:
    """The options ``size`` and ``scale`` of ``train.augment``; None for what says nothing that can be used.

    Strangers wrote it, and nothing but a default hangs on it, so what is odd counts as not said.
    """
    if found is None:  # pictures as they are
        return TrainedScale()
    if not isinstance(found, Mapping):
        return None
    size, zoom = found.get("size"), found.get("scale", USUAL_ZOOM)
    if size is not None and not (isinstance(size, list | tuple) and fits(tuple(size), Size)):
        return None
    if not isinstance(zoom, list | tuple) or len(zoom) != 2:
        return None
    low, high = zoom
    if not all(isinstance(end, int | float) and 0 < end <= _MOST_ZOOM for end in zoom) or low > high:
        return None
    return TrainedScale(None if size is None else (int(size[0]), int(size[1])), (float(low), float(high)))


def scale_of_recipe(recipe: Json) -> TrainedScale | None:
    """What a stored recipe says of it; None: nothing."""
    train = recipe.get("train") if isinstance(recipe, Mapping) else None
    if not isinstance(train, Mapping):
        return None
    # without the key training takes Augment(scale=(1, 1))
    return scale_of_facts(train["augment"]) if "augment" in train else TrainedScale()
