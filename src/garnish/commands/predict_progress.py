"""Progress of ``garnish predict`` on standard error: one live line on a terminal, else a line after each tenth."""

from __future__ import annotations

import threading
import time
from typing import final

from rich.live import Live
from rich.text import Text

from garnish.errors import showable
from garnish.output import console, say

#: Pictures of which so few are predicted that a line for each tells as much.
_FEW = 20


@final
class PredictProgress:
    """Is told of pictures by several threads; a context manager.

    Args:
        total: pictures and frames; None: not known.
        lines: print what was written of each picture on standard output.
    """

    def __init__(self, total: int | None, *, lines: bool) -> None:
        self.total, self.done = total, 0
        self.console = console(stderr=True)
        self.shown = total is None or total > _FEW
        self.live = (
            Live(console=self.console, refresh_per_second=4) if self.shown and self.console.is_terminal else None
        )
        self.lines = lines and self.live is None
        self._lock, self._since, self._printed = threading.Lock(), time.perf_counter(), 0

    def __enter__(self) -> PredictProgress:
        if self.live is not None:
            self.live.start()
        self._since = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live is not None:
            self.live.stop()

    def picture(self, line: str | None) -> None:
        """One more is done."""
        with self._lock:
            self.done += 1
            if self.lines and line is not None:
                say(line)
            if self.live is not None:
                self.live.update(Text(showable(self.line()), no_wrap=True, overflow="ellipsis"))
            elif self.shown and self.total is not None and self.done - self._printed >= self.total / 10:
                self._printed = self.done
                say(self.line(), stderr=True)

    def line(self) -> str:
        """``120/500 pictures  8.3 pictures/s  0:46 left``."""
        speed = self.done / max(time.perf_counter() - self._since, 1e-9)
        if self.total is None:
            return f"{self.done} pictures  {speed:.3g} pictures/s"
        left = round((self.total - self.done) / speed)
        width = len(str(self.total))
        clock = (
            f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}" if left >= 3600 else f"{left // 60}:{left % 60:02d}"
        )
        return f"{self.done:>{width}}/{self.total} pictures  {speed:.3g} pictures/s  {clock} left"
