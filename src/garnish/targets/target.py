"""What a kind of target is: its tensor type, what stands for "no label", how its values move with the picture.

A kind is a class of class variables and class methods, which nobody makes an object of. Whoever needs it asks the task
(``Task.target``), so that a new kind needs no name and no entry anywhere.

Shape letters: B pictures, C channels of the target, H W pixels.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from garnish.errors import OptionError
from garnish.files.orientation import Matrix, axes_of, turn
from garnish.targets.kernels import register

#: What stands for "no label here" in every integer and binary target.
IGNORE = 255


class Target(ABC):
    """One kind of target; the defaults are those of a map of amounts that a turned camera sees alike.

    A subclass names :attr:`tensor` and :attr:`missing`. Where it is defined every geometric functional of torchvision
    gets a kernel for its tensor type: one that is right, or one that refuses.

    Raises:
        OptionError: at the definition of a subclass that does not name both; a type that belongs to another kind,
            or torchvision's ``Mask`` with rules that its kernels do not follow.
    """

    #: Type of its tensors, a class of its own that extends torchvision's ``TVTensor``; or ``Mask``, for ids.
    tensor: ClassVar[type[Any]]
    #: Value that says "no label", in every channel; what a transform uncovers gets it. May be NaN.
    missing: ClassVar[float]
    #: C, but for ids, which have no axis of channels.
    channels: ClassVar[int] = 1
    #: Whether values are names of classes, so that their pixels are counted by class, and not amounts.
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
        """Values as a camera sees them that is mirrored, or rolled about its axis, with the picture.

        Args:
            values: (…, C, H, W), already in their new places; those without a label must come out as they are.
            axes: the orthogonal matrix that takes (x right, y down) of the picture before to those after.
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
        """Valid values at random, by torch's generator, with a label at every pixel: (count, C, H, W) float32.

        Args:
            count: number of pictures.
            channels: output maps of the task, which for ids is the number of classes.
            size: (H, W).
            device: where to make it.
        """
        return torch.randn(count, cls.channels, *size, device=device)

    @classmethod
    def classes(cls, legend: Sequence[str], channels: int) -> tuple[str, ...]:
        """Names by which pixels are counted, in the order of their values; none where values are amounts.

        Args:
            legend: what the task names in its pictures.
            channels: output maps of the task.
        """
        return ()

    @classmethod
    def oddity(cls, target: Tensor, labelled: Tensor) -> str | None:
        """What is suspicious about a single valid target, as words that follow "labels"; None where nothing is.

        Args:
            target: one without an axis of pictures, with some label.
            labelled: bool, where its task counts one.
        """
        known = target.reshape(target.shape[0], -1)[:, labelled.reshape(-1)]
        return "hold one value only" if known.shape[1] > 1 and bool((known == known[:, :1]).all()) else None

    @classmethod
    def lacking(cls, absent: Sequence[str], maps: int) -> str | None:
        """What is told of a whole set where no pixel has some of :meth:`classes`; None where that is as it may be.

        Args:
            absent: those names, some.
            maps: how many label maps were read.
        """
        shown = ", ".join(absent[:8]) + (f" … ({len(absent)} in all)" if len(absent) > 8 else "")
        return f"no pixel of the classes {shown}; nothing can be learnt of them"

    @classmethod
    def wrap(cls, values: Tensor) -> Tensor:
        """The same values, without a copy, as a tensor that transforms know for one of this kind."""
        wrapped: Tensor = values.as_subclass(cls.tensor)
        return wrapped

    @classmethod
    def of(cls, values: np.ndarray, stored: int = 1) -> Tensor:
        """A target from an array of the same layout.

        Args:
            values: (…, H, W); not copied where they are upright.
            stored: EXIF orientation of the picture in whose stored pixels they lie; the result lies in the upright one.
        """
        if stored == 1:
            return cls.wrap(torch.from_numpy(values))
        return cls.wrap(cls.turned(torch.from_numpy(turn(values, stored, (-2, -1))), axes_of(stored)))
