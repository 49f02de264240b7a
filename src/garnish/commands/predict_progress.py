"""Progress of ``garnish predict`` on standard error: pictures done, speed and time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import final

from garnish.output import say
from garnish.reporting.live_line import LiveLine, clock

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
        self.live = LiveLine(total, shown=total is None or total > _FEW)
        self.lines = lines and self.live.live is None
        self._lock, self._since = threading.Lock(), time.perf_counter()

    def __enter__(self) -> PredictProgress:
        self.live.__enter__()
        self._since = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.live.__exit__(*exc)

    def picture(self, line: str | None) -> None:
        """One more is done."""
        with self._lock:
            self.done += 1
            if self.lines and line is not None:
                say(line)
            self.live.show(self.done, self.lengths())

    def lengths(self) -> Iterator[str]:
        """``120/500 pictures  8.3 pictures/s  0:46 left``, in full and then shorter."""
        speed = self.done / max(time.perf_counter() - self._since, 1e-9)
        if self.total is None:
            yield f"{self.done} pictures  {speed:.3g} pictures/s"
            yield f"{self.done}"
            return
        left = clock((self.total - self.done) / speed)
        at = f"{self.done:>{len(str(self.total))}}/{self.total}"
        yield f"{at} pictures  {speed:.3g} pictures/s  {left} left"
        yield f"{at}  {left} left"
        yield at
