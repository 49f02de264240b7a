"""Undoing a training step that is interrupted between its forward passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor


@final
class BegunStep:
    """A copy of the buffers at the start of a step, to restore if the step is interrupted.

    Args:
        buffers: running statistics and their counters; parameters do not change before the update.
    """

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        self._buffers = list(buffers)
        self._former = [buffer.detach().clone() for buffer in self._buffers]
        self._is_begun = False

    def begin(self) -> None:
        """Copy the current buffers."""
        self._copy(self._buffers, self._former)
        self._is_begun = True

    def end(self) -> None:
        """Mark the step as complete, so that there is nothing to undo."""
        self._is_begun = False

    def undo(self) -> None:
        """Restore the buffers to the start of the step, if one is in progress."""
        if self._is_begun:
            self._copy(self._former, self._buffers)

    def _copy(self, source: list[Tensor], target: list[Tensor]) -> None:
        with torch.no_grad():
            for given, taking in zip(source, target, strict=True):
                taking.copy_(given)
