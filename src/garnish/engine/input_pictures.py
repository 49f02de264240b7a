"""The input of a trunk: pictures are checked, normalised and padded.

Shape letters: I pictures, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from garnish.engine.open_sizes import rounded_up
from garnish.errors import OptionError

#: Float pictures with values above this are taken to be in 0 … 255 instead of [0, 1].
_BRIGHT = 16.0


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
    known = type(images) is Tensor and images.device.type == "cpu" and not torch.compiler.is_compiling()
    known = known and not torch.is_grad_enabled() and images.numel() > 0
    if known and images.is_floating_point() and not _is_traced() and float(images.detach().amax()) > _BRIGHT:
        raise OptionError(f"pictures are floats up to {float(images.detach().amax()):g}; divide by 255, or give uint8")


def _is_traced() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


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
