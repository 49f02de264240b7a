"""The windows of one picture in their order, of which a few wait for their passes or run while others are blended.

Shape letters: C bands or channels of an output, h w pixels of a window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import final

import numpy as np

from garnish.errors import GarnishError
from garnish.pictures.raster import Window
from garnish.serving.engine import Outcome
from garnish.tiles.passes import Reader


@final
class WindowsAhead:
    """A reader and a runner for :func:`garnish.tiles.passes.run_windows`, which goes by the order of a plan.

    Args:
        windows: of the plan.
        read: gives their pixels.
        submit: queues pixels (C, h, w).
        outcome: waits for what was queued.
        ahead: how many are queued at a time.
    """

    def __init__(
        self,
        windows: Iterable[Window],
        read: Reader,
        submit: Callable[[np.ndarray], Future[Outcome]],
        outcome: Callable[[Future[Outcome]], Outcome],
        ahead: int,
    ) -> None:
        self._windows, self._read, self._submit, self._ahead = iter(windows), read, submit, ahead
        self._outcome = outcome
        self._queued: deque[tuple[Window, np.ndarray, Future[Outcome]]] = deque()

    def read(self, window: Window) -> np.ndarray:
        """The pixels of the next window; those behind it are queued with it."""
        while len(self._queued) < self._ahead and (following := next(self._windows, None)) is not None:
            pixels = self._read(following)
            self._queued.append((following, pixels, self._submit(pixels)))
        here, pixels, _ = self._queued[0]
        assert here == window, "windows are asked for in the order of the plan"
        return pixels

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The raw outputs of the window that was read last, ``bundle/task`` → (C, h, w).

        Raises:
            GarnishError: why it has none. Whatever its pass raised.
        """
        outcome = self._outcome(self._queued.popleft()[2])
        if isinstance(outcome, GarnishError):
            raise outcome
        return {f"{bundle}/{task}": raw for (bundle, task), raw in outcome.items()}

    def close(self) -> None:
        """Take what is still queued out."""
        for _, _, future in self._queued:
            future.cancel()
