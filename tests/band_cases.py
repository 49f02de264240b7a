"""Models of pictures with five bands, for tests, and what a plain network of five channels computes of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

import tiny
from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Method
from garnish.engine.banded import first_layer
from garnish.model.model import Model, adapt
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands

FIVE = Bands(names=("nir", "blue", "green", "swir", "red"), range=(0.0, 1.0))
#: where red, green and blue, and the others, are among them
RGB, OTHERS = [4, 2, 1], [0, 3]
MEAN, STD = (0.31, 0.4, 0.5, 0.62, 0.7), (0.11, 0.2, 0.3, 0.23, 0.1)


def statistics(mean: Sequence[float] = MEAN, std: Sequence[float] = STD, missing: float = 0.0) -> BandStatistics:
    count = len(mean)
    return BandStatistics(
        mean=tuple(mean), std=tuple(std), minimum=(0.0,) * count, maximum=(1.0,) * count, missing=(missing,) * count
    )


def model(
    short: str,
    added: Method | Sequence[Method],
    *,
    own: bool = True,
    tasks: Sequence[str] = tuple(tiny.TASKS),
    bands: Bands = FIVE,
    known: BandStatistics | None = None,
    extra: str = "zero",
) -> Model:
    """As :func:`tiny.model`, of pictures with other bands; ``own``: nothing is as it starts."""
    torch.manual_seed(0)
    specs = {name: registry.build("tasks", *tiny.TASKS[name]) for name in tasks}
    known = statistics() if known is None and bands is FIVE else known
    head = registry.build("heads", "LinearHead")
    made = adapt(tiny.backbone(short), added, specs, head, bands=bands, statistics=known, extra=extra)
    if own:
        tiny.randomise_own(made)
    return made.eval()


@cache
def pictures(count: int = 3, height: int = 64, width: int = 64, bands: int = 5) -> Tensor:
    """(count, bands, height, width) float32 in [0, 1]."""
    return torch.rand(count, bands, height, width, generator=torch.Generator().manual_seed(2))


def normalised(trunk: Backbone, images: Tensor) -> Tensor:
    """Five bands in the order of the picture, as a network of five channels takes them: by NumPy, in float64."""
    mean, std = np.array(MEAN), np.array(STD)
    mean[RGB], std[RGB] = trunk.mean, trunk.std
    x = (images.double().numpy() - mean[:, None, None]) / std[:, None, None]
    padded = [-side % trunk.multiple for side in images.shape[-2:]]
    return torch.from_numpy(np.pad(x, [(0, 0), (0, 0), (0, padded[0]), (0, padded[1])]))


def plain(trunk: Backbone, filters: Tensor) -> tuple[Backbone, nn.Conv2d]:
    """A copy of a bare trunk, in float64, whose first layer is a plain convolution of the picture's five channels.

    And that layer.
    """
    made = copy.deepcopy(trunk).double()
    _, layer = first_layer(made)
    weight = layer.weight.new_zeros(layer.out_channels, 5, *layer.kernel_size)
    weight[:, RGB], weight[:, OTHERS] = layer.weight.detach(), filters.detach().double()
    layer.in_channels, layer.weight = 5, nn.Parameter(weight)
    return made, layer
