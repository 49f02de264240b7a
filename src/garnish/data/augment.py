"""Joint transforms of a picture and its labels: random changes for training, resizing for evaluation.

How each kind of target is transformed is defined in :mod:`garnish.targets`. Areas outside the picture are filled with a
neutral colour (of other bands than 8-bit RGB: have no data, NaN) and have no label. NaN travels as it is: a pixel that
is made of others, of which one has no data, has none. A zoom does not change metric depth; keep ``Augment.scale``
narrow if a network that does not see the camera matrix is to learn metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from garnish.data.class_points import Points
from garnish.data.dataset import Sample
from garnish.data.drawn_change import Change
from garnish.data.window_resize import Span, nearest, needed_rows, resized_part, weights
from garnish.engine.trained_scale import TrainedScale
from garnish.errors import OptionError
from garnish.model.input_size import resized_pictures
from garnish.pictures.raster import Window
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
        balance: a task whose labels are classes: a class is drawn of those that the picture has, then a crop that holds
            a pixel of it, so that rare ones are seen as often as others. All of its labels are read once before the
            first step. null: every crop is as likely.

    Raises:
        OptionError: a value out of range.

    Example:
        >>> gn.Augment(size=(64, 64), colour=0.2).flip
        0.5
    """

    size: Size | None = None
    scale: tuple[Zoom, Zoom] = (0.75, 1.5)
    flip: Share = 0.5
    rotate_degrees: Annotated[float, reals(0, 180)] = 0.0
    colour: Annotated[float, reals(0, 1, below=True)] = 0.0
    balance: str | None = None

    def __post_init__(self) -> None:
        if self.scale[0] > self.scale[1]:
            raise OptionError(f"augment.scale: the low end comes first, got {self.scale}")

    def __call__(self, sample: Sample, seed: tuple[int, ...], points: Points | None = None) -> Sample:
        """Apply random changes to a sample; a pure function of its arguments that uses no global random generator.

        Args:
            sample: not modified.
            seed: integers ≥ 0, for instance (seed, epoch, index).
            points: of its classes, of which the crop is to hold one; None or empty: any crop.

        Raises:
            OptionError: ``colour`` for a picture of other bands than 8-bit RGB.
        """
        change = self.change(sample.size, seed, points)
        sample = resize_sample(sample, change.scaled)
        if change.degrees:
            sample = _each(sample, partial(_rotated, change.degrees, None))
        return self._cut(sample, change, change.top, change.left)

    def of_windows(
        self,
        size: tuple[int, int],
        read: Callable[[Window], Sample],
        seed: tuple[int, ...],
        points: Points | None = None,
    ) -> Sample | None:
        """The same of a picture that is read by windows: what the crop needs is read, and nothing else.

        Equal to ``self(whole, seed)`` to the rounding of resampling: a level of 8 bits.

        Args:
            size: (H, W) of the picture.
            read: gives a window of it.
            seed: as above, like ``points``.
            points: of its classes.

        Returns:
            None where more than half of the picture is needed, so that it is read as a whole.
        """
        change = self.change(size, seed, points)
        box = change.box()
        held = [
            needed_rows(part, *sides) for part, sides in zip(box, zip(size, change.scaled, strict=True), strict=True)
        ]
        (top, bottom), (left, right) = held
        if 2 * (bottom - top) * (right - left) > size[0] * size[1]:
            return None
        sample = resized_window(read(Window(top, left, bottom - top, right - left)), size, change.scaled, box, held)
        if change.degrees:
            centre = [change.scaled[1] / 2 - box[1].first, change.scaled[0] / 2 - box[0].first]
            sample = _each(sample, partial(_rotated, change.degrees, centre))
        return self._cut(sample, change, change.top - box[0].first, change.left - box[1].first)

    def change(self, own: tuple[int, int], seed: tuple[int, ...], points: Points | None = None) -> Change:
        """What is drawn for a picture of (H, W) pixels."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        height, width = self.size or own
        zoom = float(np.exp(rng.uniform(*np.log(self.scale))))
        zoom *= max(height / own[0], width / own[1])
        scaled = (max(round(own[0] * zoom), 1), max(round(own[1] * zoom), 1))
        degrees = float(rng.uniform(-1, 1)) * self.rotate_degrees
        top, left = (_offset(rng, have, want) for have, want in zip(scaled, (height, width), strict=True))
        flips = bool(rng.uniform() < self.flip)
        factors = rng.uniform(1 - self.colour, 1 + self.colour, 3).tolist()
        change = Change(scaled, degrees, top, left, (height, width), flips, tuple(factors))
        if not points:
            return change
        (label,) = rng.choice(sorted(points), 1)  # classes alike, then pixels of it alike
        y, x = points[int(label)][rng.integers(len(points[int(label)]))].tolist()
        place = change.moved(((y + 0.5) * scaled[0] / own[0], (x + 0.5) * scaled[1] / own[1]))
        top, left = (_offset_holding(rng, *of) for of in zip(place, scaled, change.size, strict=True))
        return replace(change, top=top, left=left)

    def _cut(self, sample: Sample, change: Change, top: int, left: int) -> Sample:
        sample = _each(sample, lambda x, fill, _: _window(x, top, left, change.size, fill))
        if change.flips:
            sample = _each(sample, lambda x, *_: V.horizontal_flip(x))
        return self._coloured(sample, list(change.factors))

    def _coloured(self, sample: Sample, factors: list[float]) -> Sample:
        if not self.colour:
            return sample
        if sample.image.dtype != torch.uint8:
            raise OptionError(colour_needs_rgb(self.colour, sample.name))
        image = V.adjust_brightness(sample.image, factors[0])
        image = V.adjust_saturation(V.adjust_contrast(image, factors[1]), factors[2])
        return Sample(image, sample.targets, sample.name)


def scale_of(augment: Augment | None) -> TrainedScale:
    """How large the pictures are that training with these changes sees."""
    return TrainedScale() if augment is None else TrainedScale(augment.size, augment.scale)


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
    image = tv_tensors.wrap(resized_pictures(sample.image.as_subclass(Tensor), size), like=sample.image)
    return Sample(image, {task: resize_target(target, size) for task, target in sample.targets.items()}, sample.name)


def resized_window(
    held_sample: Sample, own: tuple[int, int], scaled: tuple[int, int], box: Sequence[Span], held: Sequence[Span]
) -> Sample:
    """The part ``box`` of a picture of ``own`` pixels resized to ``scaled``, of the window ``held`` of it."""
    sides = list(zip(box, own, scaled, held, strict=True))
    if own == scaled:
        return held_sample
    rows, columns = (weights(*side) for side in sides)
    image = tv_tensors.wrap(resized_part(held_sample.image.as_subclass(Tensor), rows, columns), like=held_sample.image)
    y, x = (nearest(*side) for side in sides)
    targets = {
        task: tv_tensors.wrap(target.as_subclass(Tensor)[..., y[:, None], x], like=target)
        for task, target in held_sample.targets.items()
    }
    return Sample(image, targets, held_sample.name)


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


def _rotated(
    degrees: float, centre: list[float] | None, x: Tensor, fill: float | list[float], mode: InterpolationMode
) -> Tensor:
    """A picture or label rotated about its centre, or about (x, y) in pixels from its upper left corner.

    Where NaN is filled, it is so in every pixel that reaches outside.
    """
    if fill != fill:  # a fill is weighed with what is inside, where NaN times 0 would stay NaN
        turned: Tensor = V.rotate(x, degrees, interpolation=mode, center=centre)
        inside = V.rotate(torch.ones(1, *x.shape[-2:]), degrees, interpolation=mode, center=centre)
        masked: Tensor = tv_tensors.wrap(turned.masked_fill(inside < 1 - 1e-4, math.nan), like=x)
        return masked
    out: Tensor = V.rotate(x, degrees, interpolation=mode, fill=fill, center=centre)
    return out


def _offset(rng: np.random.Generator, have: int, want: int) -> int:
    """Random first row or column of a window of length ``want`` in ``have``: inside it, or around it if larger."""
    return int(rng.integers(min(have - want, 0), max(have - want, 0) + 1))


def _offset_holding(rng: np.random.Generator, place: float, have: int, want: int) -> int:
    """As :func:`_offset`, of those windows that hold a place; the nearest one where none does."""
    low, high = min(have - want, 0), max(have - want, 0)
    first = min(max(math.floor(place) - want + 1, low), high)
    last = min(max(math.floor(place), low), high)
    return int(rng.integers(first, last + 1))


def _window(x: Tensor, top: int, left: int, size: tuple[int, int], fill: float | list[float]) -> Tensor:
    """Crop a window that may extend past the border; ``V.crop`` alone would fill ids with class 0."""
    height, width = x.shape[-2:]
    padding = [max(-left, 0), max(-top, 0), max(left + size[1] - width, 0), max(top + size[0] - height, 0)]
    if any(padding):
        x = V.pad(x, padding, fill=fill)
    out: Tensor = V.crop(x, max(top, 0), max(left, 0), *size)
    return out
