"""Target of distances: one number above 0 per pixel, such as depth.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from garnish.targets.histogram import Histogram, histogram_of
from garnish.targets.target import Target

#: Edges of the bins of histograms in metres: from a centimetre to ten kilometres, twelve to a power of ten.
_EDGES = np.logspace(-2, 4, 73)


@final
class DepthMap(tv_tensors.TVTensor):  # type: ignore[misc]
    """(1, H, W) float32 planar depth in metres; 0: no label."""

    def __new__(cls, data: object) -> DepthMap:
        """Wrap ``data`` without a copy where it is a tensor."""
        return torch.as_tensor(data).as_subclass(cls)


@final
class Distances(Target):
    """:class:`DepthMap`: values above 0, which do not change if the camera is rolled or mirrored; 0: no label."""

    tensor: ClassVar[type[Tensor]] = DepthMap
    missing: ClassVar[float] = 0.0

    @classmethod
    def example(
        cls, count: int, channels: int, size: tuple[int, int], device: torch.device | str | None = None
    ) -> Tensor:
        """(count, 1, H, W) float32, uniform between 0.5 and 9.5."""
        return 0.5 + 9 * torch.rand(count, 1, *size, device=device)

    @classmethod
    def quantities(cls, values: np.ndarray) -> Mapping[str, Histogram]:
        """The distance in metres, in bins of even ratio."""
        return {"distance": histogram_of(values[0], _EDGES, "m", logarithmic=True)}
