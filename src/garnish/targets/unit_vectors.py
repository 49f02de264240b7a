"""Target of unit vectors: one direction per pixel in the camera frame, such as surface normals.

Shape letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

from garnish.files.orientation import Matrix
from garnish.targets.histogram import Histogram, histogram_of
from garnish.targets.target import Target

#: Edges of the bins of histograms of one component.
_EDGES = np.linspace(-1, 1, 41)


@final
class NormalMap(tv_tensors.TVTensor):  # type: ignore[misc]
    """(3, H, W) float32 unit normals, camera frame x right, y down, z forward; zero vector: no label."""

    def __new__(cls, data: object) -> NormalMap:
        """Wrap ``data`` without a copy where it is a tensor."""
        return torch.as_tensor(data).as_subclass(cls)


@final
class UnitVectors(Target):
    """:class:`NormalMap`: directions, whose x and y turn with the picture; the zero vector: no label."""

    tensor: ClassVar[type[Tensor]] = NormalMap
    missing: ClassVar[float] = 0.0
    channels: ClassVar[int] = 3

    @classmethod
    def turned(cls, values: Tensor, axes: Matrix) -> Tensor:
        """(…, 3, H, W): x and y multiplied by the matrix, z unchanged."""
        x, y, z = values.unbind(-3)
        (a, b), (c, d) = axes
        return torch.stack([a * x + b * y, c * x + d * y, z], -3) + 0.0  # + 0.0: no negative zeros

    @classmethod
    def example(
        cls, count: int, channels: int, size: tuple[int, int], device: torch.device | str | None = None
    ) -> Tensor:
        """(count, 3, H, W) float32, every direction equally likely."""
        return F.normalize(torch.randn(count, 3, *size, device=device), dim=1)

    @classmethod
    def oddity(cls, target: Tensor, labelled: Tensor) -> str | None:
        """Warns of a single direction, or of normals that mostly point away from the camera: another frame."""
        away = float((target[2:][labelled] > 0).float().mean()) > 0.5
        told = "point away from the camera (z forward, so z of what is seen is below 0); write `flip: [z]` or `axes`"
        return super().oddity(target, labelled) or (told if away else None)

    @classmethod
    def quantities(cls, values: np.ndarray) -> Mapping[str, Histogram]:
        """The components x, y and z, whose signs tell the frame."""
        return {name: histogram_of(along, _EDGES) for name, along in zip(("x", "y", "z"), values, strict=True)}
