"""Progress of a run on standard error: losses, speed and time left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import final

from garnish.reporting.live_line import LiveLine, clock

#: Decay of the running means of losses and speed.
_KEEP = 0.9
#: Letters of a task's name that are left where the line must be short.
_SHORT = 5


@final
class Progress:
    """Prints on standard error; a context manager.

    Args:
        total: steps of the run.
        start: steps done before.
        pictures: of a step, in all processes.
        shown: print progress; False: only warnings.
    """

    def __init__(self, total: int, start: int = 0, *, pictures: int = 1, shown: bool = True) -> None:
        self.total, self.start, self.pictures, self.shown = total, start, pictures, shown
        self.live = LiveLine(total, start, shown=shown)
        self.losses: dict[str, float] = {}
        self.loss = 0.0
        self.speed = 0.0
        self._since = time.perf_counter()

    def __enter__(self) -> Progress:
        self.live.__enter__()
        self._since = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.live.__exit__(*exc)

    def say(self, text: str) -> None:
        """Print text if progress is shown."""
        self.live.say(text)

    def warn(self, text: str) -> None:
        """Print a warning, even if progress is not shown."""
        self.live.warn(text)

    def paused(self) -> None:
        """Exclude the time since the last step (an evaluation, a checkpoint) from the speed."""
        self._since = time.perf_counter()

    def step(self, step: int, losses: Mapping[str, float], total_loss: float) -> None:
        """Record a finished step; ``step``: number of steps done."""
        now = time.perf_counter()
        speed = 1 / max(now - self._since, 1e-9)
        self._since = now
        first = not self.speed
        self.speed = speed if first else _KEEP * self.speed + (1 - _KEEP) * speed
        self.loss = total_loss if first else _KEEP * self.loss + (1 - _KEEP) * total_loss
        for name, value in losses.items():
            self.losses[name] = _KEEP * self.losses.get(name, value) + (1 - _KEEP) * value
        self.live.show(step, self.lengths(step), due=step in (self.total, self.start + 1))

    def lengths(self, step: int) -> Iterator[str]:
        """``120/1000  loss 1.234  seg 0.53 …  49.1 pictures/s  1:11 left``, in full and then shorter and shorter.

        Names of tasks go first, then their losses from the last on, then speed and loss; time left is kept.
        """
        width = len(str(self.total))
        at = f"{step:>{width}}/{self.total}"
        speed = f"{self.speed * self.pictures:.3g}"
        left = f"{clock((self.total - step) / self.speed) if self.speed else '-:--'} left"
        tasks = [f"{name} {value:.4g}" for name, value in self.losses.items()]
        yield "  ".join([f"step {at}", f"loss {self.loss:.4g}", *tasks, f"{speed} pictures/s", left])
        tasks = [f"{name} {value:.3g}" for name, value in self.losses.items()]
        yield "  ".join([at, f"loss {self.loss:.3g}", *tasks, f"{speed} pic/s", left])
        tasks = [f"{name[:_SHORT]} {value:.2g}" for name, value in self.losses.items()]
        loss = f"loss {self.loss:.3g}"
        for count in range(len(tasks), -1, -1):
            more = ["…"] if 0 < count < len(tasks) else []
            yield "  ".join([at, loss, *tasks[:count], *more, f"{speed} pic/s", left])
        yield "  ".join([at, loss, left])
        yield f"{at}  {left}"
        yield at
