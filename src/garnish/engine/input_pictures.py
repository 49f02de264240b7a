"""What goes into a trunk: pictures, checked, normalised and padded.

Shape letters: I pictures, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from garnish.engine.open_sizes import rounded_up
from garnish.errors import OptionError

#: Floats above this are not in [0, 1], but in 0 … 255.
_BRIGHT = 16.0


def check_images(images: object) -> None:
    """Raise :class:`OptionError` unless these are pictures as :meth:`garnish.model.model.Model.forward` takes them."""
    if not isinstance(images, Tensor):
        what = type(images).__name__
        raise OptionError(f"pictures must be a tensor (N, 3, H, W), got {what}; model.predict takes files and arrays")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise OptionError(f"pictures must be (N, 3, H, W), got {tuple(images.shape)}; stack RGB pictures of one size")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise OptionError(f"pictures are {images.dtype}; give uint8 in 0 … 255, or floats in [0, 1]")
    # in inference, and not where it would stop a GPU or a trace; the bound is far from what noise and normalisation do
    known = type(images) is Tensor and images.device.type == "cpu" and not torch.compiler.is_compiling()
    known = known and not torch.is_grad_enabled() and images.numel() > 0
    if known and images.is_floating_point() and not _is_traced() and float(images.detach().amax()) > _BRIGHT:
        raise OptionError(f"pictures are floats up to {float(images.detach().amax()):g}; divide by 255, or give uint8")


def _is_traced() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def prepared(images: Tensor, mean: Tensor, std: Tensor, multiple: int) -> Tensor:
    """Normalised, and padded right and bottom with the mean colour.

    Args:
        images: (I, 3, H, W) float in [0, 1], or uint8 in 0 … 255.
        mean: (1, 3, 1, 1).
        std: (1, 3, 1, 1).
        multiple: of pixels, to which sides are padded.
    """
    own = mean.dtype  # of float64 and float16 models too
    images = images.to(own) / 255 if images.dtype == torch.uint8 else images.to(own)
    x = (images - mean) / std
    height, width = x.shape[-2:]
    return F.pad(x, (0, rounded_up(width, multiple) - width, 0, rounded_up(height, multiple) - height))
