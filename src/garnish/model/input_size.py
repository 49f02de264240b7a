"""At which size a model sees a picture: its own, a given one, or as training scaled.

Shape letters: n pictures, C channels of a raw output, H W pixels of the picture, h w of what the model sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from garnish.checking.bounds import Size
from garnish.engine.trained_scale import TrainedScale
from garnish.errors import OptionError
from garnish.model.served import Served

#: "own" or None: a picture's own size; "train": as training scaled it; (height, width).
SizeRule = Literal["own", "train"] | Size | None


@final
@dataclass(frozen=True)
class InputSize:
    """The size that pictures are resized to before a pass; :func:`input_size` makes it.

    Attributes:
        size: (h, w) of every picture; None: by ``scale``.
        scale: as training scaled; None: a picture's own size.
        told: one line on what is taken.
    """

    size: tuple[int, int] | None = None
    scale: TrainedScale | None = None
    told: str = "pictures have their own size"

    def of(self, own: tuple[int, int], where: str = "size: train") -> tuple[int, int]:
        """(H, W) of a picture → (h, w); raises DataError where that is larger than any picture may be."""
        if self.size is not None:
            return self.size
        return own if self.scale is None else self.scale.of(own, where)


def input_size(rule: SizeRule, served: Served, tasks: Iterable[str] | None = None) -> InputSize:
    """What a rule means for some tasks of a model.

    Args:
        rule: see :data:`SizeRule`.
        served: the model's tasks.
        tasks: those that are asked for; None: all.

    Raises:
        OptionError: "train" for tasks that were trained at different sizes, which one pass cannot be.
    """
    if rule is None or rule == "own":
        return InputSize()
    if rule != "train":
        return InputSize(size=rule, told=f"pictures are resized to {rule[0]},{rule[1]}")
    asked = [task for task in served.tasks if tasks is None or task in set(tasks)]
    scales = {task: served.owner(task).root.scale for task in asked}
    if len(set(scales.values())) > 1:
        known = {task: "its bundle says nothing" if s is None else s.told for task, s in scales.items()}
        one, other = asked[0], next(task for task in asked if scales[task] != scales[asked[0]])
        raise OptionError(
            f"size: train is not one size: of {one} {known[one]}, of {other} {known[other]}; ask for them one after"
            " the other (tasks), or give a size"
        )
    scale = next(iter(scales.values()), None)
    if scale is None:
        return InputSize(told="pictures have their own size: nothing says at which size the model was trained")
    return InputSize(scale=scale, told=f"pictures are scaled as in training: {scale.told}")


def resized_pictures(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, C, H, W) uint8 or floats → (n, C, h, w) of the same dtype: bilinear, antialiased, as training resizes."""
    if images.shape[-2:] == size:
        return images
    # torch takes a single pixel of uint8 for channels last, and fails
    whole = images.float() if size == (1, 1) else images
    found = V.resize(whole, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    out: Tensor = found if found.dtype == images.dtype else found.round().to(images.dtype)
    return out


def resized_outputs(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Raw outputs (n, C, h, w) → (n, C, H, W) float, bilinear as heads bring theirs to a picture's size."""
    if raw.shape[-2:] == size:
        return raw
    smaller = size[0] < raw.shape[-2] or size[1] < raw.shape[-1]
    out: Tensor = F.interpolate(raw.float(), size, mode="bilinear", align_corners=False, antialias=smaller)
    return out
