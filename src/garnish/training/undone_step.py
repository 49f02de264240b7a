"""A step that is cut off between its passes, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor


@final
class BegunStep:
    """What forward passes change before the update of their step, as it was when the step began.

    Args:
        buffers: running statistics and their counters; parameters do not change before the update.
    """

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        self._buffers = list(buffers)
        self._former = [buffer.detach().clone() for buffer in self._buffers]
        self._is_begun = False

    def begin(self) -> None:
        """Note the buffers as they are."""
        self._copy(self._buffers, self._former)
        self._is_begun = True

    def end(self) -> None:
        """From here on there is nothing to undo."""
        self._is_begun = False

    def undo(self) -> None:
        """Give the buffers the values that they had when the step began, if one is begun."""
        if self._is_begun:
            self._copy(self._former, self._buffers)

    def _copy(self, source: list[Tensor], target: list[Tensor]) -> None:
        with torch.no_grad():
            for given, taking in zip(source, target, strict=True):
                taking.copy_(given)
