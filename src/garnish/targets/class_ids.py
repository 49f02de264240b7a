"""Target of class ids: one class per pixel.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor
from torchvision import tv_tensors

from garnish.targets.target import IGNORE, Target


@final
class ClassIds(Target):
    """``Mask`` (H, W) int64, ids below the number of classes; 255: no label."""

    tensor: ClassVar[type[Tensor]] = tv_tensors.Mask
    missing: ClassVar[float] = IGNORE
    categorical: ClassVar[bool] = True

    @classmethod
    def labelled(cls, target: Tensor) -> Tensor:
        """(…, H, W) bool: where the id is not 255."""
        return target != IGNORE

    @classmethod
    def example(
        cls, count: int, channels: int, size: tuple[int, int], device: torch.device | str | None = None
    ) -> Tensor:
        """(count, H, W) int64, every id equally likely."""
        return torch.randint(channels, (count, *size), device=device)

    @classmethod
    def classes(cls, legend: Sequence[str], channels: int) -> tuple[str, ...]:
        """The task's names, or ``class 0``, ``class 1`` and so on."""
        return tuple(legend) if len(legend) == channels else tuple(f"class {k}" for k in range(channels))

    @classmethod
    def oddity(cls, target: Tensor, labelled: Tensor) -> str | None:
        """Warns of a map with a single class."""
        low, high = target.as_subclass(Tensor).aminmax()
        return "hold one class only" if bool(low == high) else None
