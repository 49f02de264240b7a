"""Target of binary maps: 0 or 1 per pixel.

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
class YesOrNo(Target):
    """``Mask`` (1, H, W) float32 in {0, 1}; 255: no label."""

    tensor: ClassVar[type[Tensor]] = tv_tensors.Mask
    missing: ClassVar[float] = IGNORE
    categorical: ClassVar[bool] = True

    @classmethod
    def example(
        cls, count: int, channels: int, size: tuple[int, int], device: torch.device | str | None = None
    ) -> Tensor:
        """(count, 1, H, W) float32, about three of ten pixels 1."""
        return (torch.rand(count, 1, *size, device=device) < 0.3).float()

    @classmethod
    def classes(cls, legend: Sequence[str], channels: int) -> tuple[str, ...]:
        """Background and foreground."""
        return ("background", "foreground")

    @classmethod
    def oddity(cls, target: Tensor, labelled: Tensor) -> str | None:
        """Warns of a map without background."""
        return "are foreground everywhere; is the map inverted?" if bool((target[labelled] == 1).all()) else None

    @classmethod
    def lacking(cls, absent: Sequence[str], maps: int) -> str | None:
        """Warns of a data set without foreground."""
        return f"no pixel of {maps} labels is foreground; correct `threshold`" if "foreground" in absent else None
