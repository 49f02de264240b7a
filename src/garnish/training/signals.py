"""Stopping when asked to: a signal ends the run after the pass that is under way, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import final


@final
class StopRequest:
    """While entered, the first SIGTERM or SIGINT (Ctrl-C) is only noted; a second SIGINT interrupts at once.

    One that came too late for anything to be stopped still ends the program on leaving, so that none is lost.

    Attributes:
        number: the signal that came; None: none did.

    Raises:
        SystemExit: on leaving without an error, 128 and the number of the signal.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if self.number is not None and exc[0] is None:
            raise SystemExit(128 + self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number is not None:
            raise KeyboardInterrupt
        self.number = number
