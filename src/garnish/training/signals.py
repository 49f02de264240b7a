"""Stopping on a signal: it is noted, and the run ends after the current pass with a checkpoint.

SIGTERM is what torchrun, SLURM and systemd send, SIGINT is Ctrl-C, SIGHUP a terminal that closes, SIGUSR1 and SIGUSR2
what SLURM's ``--signal`` is usually set to.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import final

#: Systems have not all of them.
_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")


@final
class StopRequest:
    """Within its ``with`` block the first signal that asks to stop is only noted; a second SIGINT interrupts at once.

    Those are SIGTERM, SIGINT (Ctrl-C), SIGHUP, SIGUSR1 and SIGUSR2; one of the last three that is ignored, as SIGHUP
    is under ``nohup``, stays so. A signal that came too late to stop anything still ends the program at the end of the
    block.

    Attributes:
        number: the signal that came; None: no signal.

    Raises:
        SystemExit: at the end of the block, if there was no error: 128 plus the number of the signal.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]:
                may_be_ignored = number not in (signal.SIGTERM, signal.SIGINT)
                if not (may_be_ignored and signal.getsignal(number) is signal.SIG_IGN):
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
