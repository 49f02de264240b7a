"""Target: base class of kinds of target, with tensor type, value of "no label", and how values follow the picture.

A kind is a class with class variables and class methods only; no instances are made. Code gets it from the task
(``Task.target``), so a new kind does not have to be registered anywhere.

Shape letters: B pictures, C channels of the target, H W pixels.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from garnish.errors import OptionError, plural
from garnish.files.orientation import Matrix, axes_of, turn
from garnish.targets.histogram import Histogram
from garnish.targets.kernels import register

#: What stands for "no label here" in every integer and binary target.
IGNORE = 255
#: Of so many pixels one is looked at first.
_SOME = 61


class Target(ABC):
    """One kind of target; the defaults suit a map of quantities that do not change if the camera turns.

    A subclass sets :attr:`tensor` and :attr:`missing`. When it is defined, every geometric functional of torchvision
    gets a kernel for its tensor type: a correct one, or one that raises.

    Raises:
        OptionError: at the definition of a subclass that does not name both; a type that belongs to another kind,
            or torchvision's ``Mask`` with rules that its kernels do not follow.
    """

    #: Type of its tensors, a class of its own that extends torchvision's ``TVTensor``; or ``Mask``, for ids.
    tensor: ClassVar[type[Tensor]]
    #: Value that means "no label", in every channel; transforms fill with it. May be NaN.
    missing: ClassVar[float]
    #: C; not used for ids, which have no channel axis.
    channels: ClassVar[int] = 1
    #: Whether values are classes, whose pixels are counted by class, rather than quantities.
    categorical: ClassVar[bool] = False
    #: Geometric functional of torchvision → kernel that replaces the default one; see :mod:`garnish.targets.kernels`.
    kernels: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # kernels are those of the class that names the tensor: rules of a class below it would be passed over
        if "tensor" not in vars(cls):
            raise OptionError(f"{cls.__name__}.tensor: is not given; name a tensor type of this kind alone")
        if not any("missing" in vars(base) for base in cls.__mro__):
            raise OptionError(f"{cls.__name__}.missing: is not given; name the value that says 'no label'")
        if not isinstance(cls.tensor, type):
            raise OptionError(f"{cls.__name__}.tensor: expected a class, got {cls.tensor!r}; extend TVTensor")
        if cls.tensor is not tv_tensors.Mask:
            register(cls.tensor, cls.missing, cls.turned, cls.kernels, cls.__name__)
        elif cls.missing != IGNORE or cls.kernels or cls.turned.__func__ is not Target.turned.__func__:  # type: ignore[attr-defined]
            raise OptionError(
                f"{cls.__name__}.tensor: a Mask moves by torchvision's own rules and has {IGNORE} for no label; define"
                " a tensor type of its own"
            )

    @classmethod
    def turned(cls, values: Tensor, axes: Matrix) -> Tensor:
        """Values as seen by a camera that is mirrored, or rolled about its axis, with the picture.

        Args:
            values: (…, C, H, W), already in their new places; those without a label must come out unchanged.
            axes: the orthogonal matrix from (x right, y down) in the picture before to those after.
        """
        return values

    @classmethod
    def labelled(cls, target: Tensor) -> Tensor:
        """(…, C, H, W) → (…, 1, H, W) bool: where some channel is not :attr:`missing`."""
        known = ~target.isnan() if math.isnan(cls.missing) else target != cls.missing
        return known.any(-3, keepdim=True)

    @classmethod
    def example(
        cls, count: int, channels: int, size: tuple[int, int], device: torch.device | str | None = None
    ) -> Tensor:
        """Random valid values from torch's generator, with a label at every pixel: (count, C, H, W) float32.

        Args:
            count: number of pictures.
            channels: output channels of the task, for ids the number of classes.
            size: (H, W).
            device: where to make it.
        """
        return torch.randn(count, cls.channels, *size, device=device)

    @classmethod
    def classes(cls, legend: Sequence[str], channels: int) -> tuple[str, ...]:
        """Names of the classes whose pixels are counted, in the order of their values; empty for quantities.

        Args:
            legend: label names of the task.
            channels: output channels of the task.
        """
        return ()

    @classmethod
    def oddity(cls, target: Tensor, labelled: Tensor) -> str | None:
        """What is suspicious about a single valid target, as words that follow "labels"; None: nothing.

        Args:
            target: without a batch axis, with at least one label.
            labelled: bool, where its task counts a label.
        """
        values = target.as_subclass(Tensor).reshape(target.shape[0], -1)
        known = labelled.as_subclass(Tensor).reshape(-1)
        first = values[:, known.byte().argmax(), None]  # of the labelled pixels
        for pixels in (slice(None, None, _SOME), slice(None)):  # most targets show in a few pixels that they vary
            if not ((values[:, pixels] == first) | ~known[pixels]).all():
                return None
        return "hold one value only" if int(known.sum()) > 1 else None

    @classmethod
    def quantities(cls, values: np.ndarray) -> Mapping[str, Histogram]:
        """Name of a quantity → its histogram, which ``garnish check`` adds up and draws; empty: there is none to draw.

        Args:
            values: (C, n) of n labelled pixels of one target, which is not :attr:`categorical`; n is at least 1.
        """
        return {}

    @classmethod
    def lacking(cls, absent: Sequence[str], maps: int) -> str | None:
        """Warning about a data set in which no pixel has some of :meth:`classes`; None if that is normal.

        Args:
            absent: names of these classes, at least one.
            maps: how many label maps were read.
        """
        shown = ", ".join(absent[:8]) + (f" … ({len(absent)} in all)" if len(absent) > 8 else "")
        there = plural(maps, "label map")
        return f"no pixel of the classes {shown} in {there}; they are neither learnt nor measured there"

    @classmethod
    def wrap(cls, values: Tensor) -> Tensor:
        """The same values, without a copy, in this kind's tensor type, which transforms recognise."""
        wrapped: Tensor = values.as_subclass(cls.tensor)
        return wrapped

    @classmethod
    def of(cls, values: np.ndarray, stored: int = 1) -> Tensor:
        """A target from an array of the same layout.

        Args:
            values: (…, H, W); not copied if they are upright.
            stored: EXIF orientation of the picture whose stored pixels they match; the result matches the upright one.
        """
        if stored == 1:
            return cls.wrap(torch.from_numpy(values))
        return cls.wrap(cls.turned(torch.from_numpy(turn(values, stored, (-2, -1))), axes_of(stored)))
