"""The input of a trunk: pictures are checked, normalised and padded.

Shape letters: I pictures, H W pixels.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from garnish.engine.open_sizes import rounded_up
from garnish.errors import OptionError, showable

#: Float pictures with values above this are taken to be in 0 … 255 instead of [0, 1].
_BRIGHT = 16.0
#: Floats outside of this are no pictures in [0, 1], even if resizing by cubics or noise went beyond it.
_DARKEST, _LIGHTEST = -0.5, 1.5


def check_tensor(images: object) -> None:
    """Raise :class:`OptionError` unless ``images`` is a tensor with pixels; its bands are another check's."""
    if not isinstance(images, Tensor):
        what = type(images).__name__
        raise OptionError(f"pictures must be a tensor (N, C, H, W), got {what}; model.predict takes files and arrays")
    if images.ndim < 3:
        raise OptionError(f"pictures must be (N, C, H, W), got {tuple(images.shape)}; stack pictures of one size")


def check_rgb(images: Tensor) -> None:
    """Raise :class:`OptionError` unless they are what :meth:`garnish.model.model.Model.forward` takes of RGB."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise OptionError(f"pictures must be (N, 3, H, W), got {tuple(images.shape)}; stack RGB pictures of one size")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise OptionError(f"pictures are {images.dtype}; give uint8 in 0 … 255, or floats in [0, 1]")
    # inference on a CPU only: reading the maximum would stall a GPU or break a trace; noise stays far below the bound
    known = _is_readable(images) and images.device.type == "cpu" and not torch.is_grad_enabled()
    if known and images.is_floating_point() and float(images.detach().amax()) > _BRIGHT:
        raise OptionError(f"pictures are floats up to {float(images.detach().amax()):g}; divide by 255, or give uint8")


def warn_of_range(images: Tensor) -> bool:
    """Warn of float pictures that are plainly in 0 … 255, or normalised already.

    Args:
        images: (I, 3, H, W), which :func:`check_rgb` has passed. Their extremes are read, which waits for a GPU.

    Returns:
        Whether they could be judged: neither in a trace nor empty, and floats; nor inside a dispatch mode, which
        counts or records what a pass runs, and this is no part of one.
    """
    if not images.is_floating_point() or not _is_readable(images) or torch._C._len_torch_dispatch_stack():
        return False
    low, high = map(float, images.detach().aminmax())
    if low < _DARKEST or high > _LIGHTEST:
        told = "divide by 255" if high > _BRIGHT else "leave normalising to the model, by its own mean and std"
        line = f"pictures are floats from {low:.3g} to {high:.3g}; a model takes uint8, or floats from 0 to 1: {told}"
        warnings.warn(showable(line), stacklevel=3)
    return True


def _is_readable(images: Tensor) -> bool:
    """Whether there are values, which can be read without breaking a trace."""
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return type(images) is Tensor and images.numel() > 0 and not images.is_meta and not is_traced


def prepared(images: Tensor, mean: Tensor, std: Tensor, multiple: int) -> Tensor:
    """Normalise pictures and pad them right and bottom with the mean colour: (I, 3, H, W) → (I, 3, H', W').

    Args:
        images: (I, 3, H, W) float in [0, 1], or uint8 in 0 … 255.
        mean: (1, 3, 1, 1), of pictures in [0, 1]; its dtype is that of the result.
        std: (1, 3, 1, 1), likewise.
        multiple: H' and W' are the next multiples of this many pixels.
    """
    own = mean.dtype  # float64 and float16 models have their own
    images = images.to(own) / 255 if images.dtype == torch.uint8 else images.to(own)
    x = (images - mean) / std
    height, width = x.shape[-2:]
    return F.pad(x, (0, rounded_up(width, multiple) - width, 0, rounded_up(height, multiple) - height))
