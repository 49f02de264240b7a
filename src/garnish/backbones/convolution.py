"""Convolutions with size-dependent "same" padding, and running a convolution's geometry with other weights.

Shape letters: R rows, i o channels in and out, H W map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: H' = ⌈H / stride⌉, an odd pixel goes to the bottom and right.

    Timm's pads in ``forward``, which does not run when the layer is run with another weight.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = super()._conv_forward(_padded(input, self), weight, bias)
        return out


def replace_same_convolutions(net: nn.Module) -> None:
    """Replace each ``Conv2dSame`` of timm by a :class:`SameConv2d` with the same parameters."""
    for parent in list(net.modules()):
        for key, child in parent.named_children():
            if type(child) is Conv2dSame:
                assert isinstance(child, nn.Conv2d)
                same = SameConv2d(child.in_channels, child.out_channels, 1, bias=child.bias is not None, device="meta")
                for fact in ("kernel_size", "stride", "dilation", "groups"):
                    setattr(same, fact, getattr(child, fact))
                same.weight, same.bias = child.weight, child.bias
                parent._modules[key] = same


@dataclass(frozen=True)
class Geometry:
    """Geometry of a convolution: kernel size, stride, padding, dilation and groups, without its weights."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    same: bool

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Geometry:
        """The geometry of a layer."""
        same = isinstance(layer, SameConv2d)
        return cls(layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, same)

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve x (R, i, H, W) with a weight (o, i/groups, *kernel_size) → (R, o, H', W')."""
        if self.same:
            x = _padded(x, self)
        padding = self.padding if isinstance(self.padding, str) else list(self.padding)
        return torch.conv2d(x, weight, None, list(self.stride), padding, list(self.dilation), self.groups)


def _padded(x: Tensor, of: nn.Conv2d | Geometry) -> Tensor:
    out: Tensor = pad_same(x, of.kernel_size, of.stride, of.dilation)
    return out
