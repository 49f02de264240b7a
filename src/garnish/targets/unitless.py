"""Target of numbers without a unit: one per pixel, known up to their scale and shift, such as relative depth.

Shape letters: H W pixels.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor
from torchvision import tv_tensors

from garnish.targets.target import Target


@final
class UnitlessMap(tv_tensors.TVTensor):  # type: ignore[misc]
    """(1, H, W) float32, of any sign; NaN: no label, for 0 is a number like others."""

    def __new__(cls, data: object) -> UnitlessMap:
        """Wrap ``data`` without a copy where it is a tensor."""
        return torch.as_tensor(data).as_subclass(cls)


@final
class Unitless(Target):
    """:class:`UnitlessMap`: numbers that do not change if the camera is rolled or mirrored; NaN: no label."""

    tensor: ClassVar[type[Tensor]] = UnitlessMap
    missing: ClassVar[float] = math.nan

    @classmethod
    def example(
        cls, count: int, channels: int, size: tuple[int, int], device: torch.device | str | None = None
    ) -> Tensor:
        """(count, 1, H, W) float32, uniform between 1 and 255."""
        return 1 + 254 * torch.rand(count, 1, *size, device=device)
