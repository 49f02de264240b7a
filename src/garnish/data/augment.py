"""Joint transforms of a picture and its labels: random changes for training, resizing for evaluation.

How each kind of target is transformed is defined in :mod:`garnish.targets`. Areas outside the picture are filled with a
neutral colour (of other bands than 8-bit RGB: have no data, NaN) and have no label. NaN travels as it is: a pixel that
is made of others, of which one has no data, has none. A zoom does not change metric depth; keep ``Augment.scale``
narrow if a network that does not see the camera matrix is to learn metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, final

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from garnish.checking.arguments import Options
from garnish.checking.bounds import Share, Size
from garnish.checking.plain_data import reals
from garnish.data.dataset import Sample
from garnish.errors import OptionError
from garnish.targets.kernels import resize_target
from garnish.targets.target import IGNORE

#: Zooms: a picture of 1,024² becomes one of 16,384² at most.
Zoom = Annotated[float, reals(0.01, 16)]

#: fill colour outside the picture: ImageNet's mean, so about 0 after a backbone's normalisation
PAD_COLOUR = (124.0, 116.0, 104.0)


@final
@dataclass(frozen=True, kw_only=True)
class Augment(Options):
    """Random changes of a training picture and its labels, in this order: scale, rotate, crop, flip, colour.

    Attributes:
        size: (height, width) of the result in pixels; None: the picture's own size.
        scale: range of the random zoom, sampled log-uniformly. At 1 the picture just covers ``size``; below 1 the
            rest is filled and has no label.
        flip: probability of a horizontal flip.
        rotate_degrees: largest rotation in either direction, sampled uniformly.
        colour: brightness, contrast and saturation are multiplied by random factors within 1 ± colour; for 8-bit RGB
            alone, as saturation has no meaning for other bands, and their levels are measurements.

    Raises:
        OptionError: a value out of range.
    """

    size: Size | None = None
    scale: tuple[Zoom, Zoom] = (0.75, 1.5)
    flip: Share = 0.5
    rotate_degrees: Annotated[float, reals(0, 180)] = 0.0
    colour: Annotated[float, reals(0, 1, below=True)] = 0.0

    def __post_init__(self) -> None:
        if self.scale[0] > self.scale[1]:
            raise OptionError(f"augment.scale: the low end comes first, got {self.scale}")

    def __call__(self, sample: Sample, seed: tuple[int, ...]) -> Sample:
        """Apply random changes to a sample; a pure function of its arguments that uses no global random generator.

        Args:
            sample: not modified.
            seed: integers ≥ 0, for instance (seed, epoch, index).

        Raises:
            OptionError: ``colour`` for a picture of other bands than 8-bit RGB.
        """
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        height, width = self.size or sample.size
        zoom = float(np.exp(rng.uniform(*np.log(self.scale))))
        zoom *= max(height / sample.size[0], width / sample.size[1])
        scaled = (max(round(sample.size[0] * zoom), 1), max(round(sample.size[1] * zoom), 1))
        sample = resize_sample(sample, scaled)
        degrees = float(rng.uniform(-1, 1)) * self.rotate_degrees
        if degrees:
            sample = _each(sample, partial(_rotated, degrees))
        top, left = (_offset(rng, have, want) for have, want in zip(scaled, (height, width), strict=True))
        sample = _each(sample, lambda x, fill, _: _window(x, top, left, (height, width), fill))
        if rng.uniform() < self.flip:
            sample = _each(sample, lambda x, *_: V.horizontal_flip(x))
        return self._coloured(sample, rng.uniform(1 - self.colour, 1 + self.colour, 3).tolist())

    def _coloured(self, sample: Sample, factors: list[float]) -> Sample:
        if not self.colour:
            return sample
        if sample.image.dtype != torch.uint8:
            raise OptionError(colour_needs_rgb(self.colour, sample.name))
        image = V.adjust_brightness(sample.image, factors[0])
        image = V.adjust_saturation(V.adjust_contrast(image, factors[1]), factors[2])
        return Sample(image, sample.targets, sample.name)


def colour_needs_rgb(colour: float, where: str) -> str:
    """The line that refuses ``augment.colour`` for pictures of other bands."""
    return (
        f"{where}: augment.colour {colour:g} changes brightness, contrast and saturation, which 8-bit RGB has and other"
        " bands have not; set it to 0"
    )


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize picture (bilinear, antialiased) and labels (nearest neighbour) to ``size`` = (height, width)."""
    if sample.size == size:
        return sample
    whole = sample.image
    if size == (1, 1):  # torch takes a single pixel of uint8 for channels last, and fails
        whole = whole.float()
    image = V.resize(whole, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    if image.dtype != sample.image.dtype:
        image = tv_tensors.wrap(image.round().to(sample.image.dtype), like=sample.image)
    return Sample(image, {task: resize_target(target, size) for task, target in sample.targets.items()}, sample.name)


def _each(sample: Sample, change: Callable[[Tensor, float | list[float], InterpolationMode], Tensor]) -> Sample:
    """Apply ``change(tensor, fill, interpolation)`` to the picture and to every label.

    The fill value of labels, 255, is that of masks; other kinds ignore it and use their own value for "no label".
    """
    fill = list(PAD_COLOUR) if sample.image.dtype == torch.uint8 else math.nan
    image = change(sample.image, fill, InterpolationMode.BILINEAR)
    targets = {
        task: change(target, float(IGNORE), InterpolationMode.NEAREST) for task, target in sample.targets.items()
    }
    return Sample(image, targets, sample.name)


def _rotated(degrees: float, x: Tensor, fill: float | list[float], mode: InterpolationMode) -> Tensor:
    """A picture or label rotated; where NaN is filled, it is so in every pixel that reaches outside."""
    if fill != fill:  # a fill is weighed with what is inside, where NaN times 0 would stay NaN
        turned: Tensor = V.rotate(x, degrees, interpolation=mode)
        inside = V.rotate(torch.ones(1, *x.shape[-2:]), degrees, interpolation=mode)
        filled: Tensor = tv_tensors.wrap(turned.masked_fill(inside < 1 - 1e-4, math.nan), like=x)
        return filled
    out: Tensor = V.rotate(x, degrees, interpolation=mode, fill=fill)
    return out


def _offset(rng: np.random.Generator, have: int, want: int) -> int:
    """Random first row or column of a window of length ``want`` in ``have``: inside it, or around it if larger."""
    return int(rng.integers(min(have - want, 0), max(have - want, 0) + 1))


def _window(x: Tensor, top: int, left: int, size: tuple[int, int], fill: float | list[float]) -> Tensor:
    """Crop a window that may extend past the border; ``V.crop`` alone would fill ids with class 0."""
    height, width = x.shape[-2:]
    padding = [max(-left, 0), max(-top, 0), max(left + size[1] - width, 0), max(top + size[0] - height, 0)]
    if any(padding):
        x = V.pad(x, padding, fill=fill)
    out: Tensor = V.crop(x, max(top, 0), max(left, 0), *size)
    return out
