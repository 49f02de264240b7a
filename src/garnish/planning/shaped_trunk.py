"""A trunk with shapes but no values, and copies of it for trying methods."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.backbones.backbone import Backbone
from garnish.backbones.build import backbone


@final
class ShapedTrunk:
    """A backbone on the device "meta": it takes no memory, and is built once for all candidates.

    Args:
        name, options: as for :func:`garnish.backbone`.
    """

    def __init__(self, name: str, options: Mapping[str, object] | None = None) -> None:
        self._name, self._options = name, options
        with torch.device("meta"):
            self._meta = backbone(name, options=options)

    @property
    def multiple(self) -> int:
        """The number to a multiple of which picture sides are padded."""
        return self._meta.multiple

    def without_memory(self) -> Backbone:
        """A bare copy on the device "meta": enough to count parameters."""
        return copy.deepcopy(self._meta)

    def with_values(self) -> Backbone:
        """A backbone of real tensors with random values."""
        return backbone(self._name, options=self._options)

    def to_run(self, fake: FakeTensorMode) -> Backbone:
        """A bare copy of fake tensors: it can be run, without computing anything."""
        made = copy.deepcopy(self._meta)  # outside the mode, or the copies would have modes of their own
        with fake:
            for module in made.modules():
                for held in (module._parameters, module._buffers):
                    for name, tensor in held.items():
                        if tensor is not None:
                            held[name] = _like(tensor)  # type: ignore[assignment]
        return made


def _like(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
