"""Progress of a run on standard error: one live line on a terminal, else a line after each tenth of the steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import final

from rich.live import Live
from rich.text import Text

from garnish.errors import showable
from garnish.output import console

#: Decay of the running means of losses and speed.
_KEEP = 0.9


@final
class Progress:
    """Prints on standard error; a context manager.

    Args:
        total: steps of the run.
        start: steps done before.
        shown: print progress; False: only warnings.
    """

    def __init__(self, total: int, start: int = 0, *, shown: bool = True) -> None:
        self.total, self.start, self.shown = total, start, shown
        self.console = console(stderr=True)
        self.live = Live(console=self.console, refresh_per_second=4) if shown and self.console.is_terminal else None
        self.losses: dict[str, float] = {}
        self.speed = 0.0
        self._since = time.perf_counter()
        self._printed = start

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
        self._since = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """Print text if progress is shown."""
        if self.shown and text:
            self.console.print(showable(text, keep="\n"))

    def warn(self, text: str) -> None:
        """Print a warning, even if progress is not shown."""
        self.console.print(showable(f"warning: {text}"), style="yellow")

    def paused(self) -> None:
        """Exclude the time since the last step (an evaluation, a checkpoint) from the speed."""
        self._since = time.perf_counter()

    def step(self, step: int, losses: Mapping[str, float], total_loss: float) -> None:
        """Record a finished step; ``step``: number of steps done."""
        now = time.perf_counter()
        speed = 1 / max(now - self._since, 1e-9)
        self._since = now
        self.speed = speed if not self.speed else _KEEP * self.speed + (1 - _KEEP) * speed
        for name, value in {"loss": total_loss, **losses}.items():
            self.losses[name] = _KEEP * self.losses.get(name, value) + (1 - _KEEP) * value
        if self.live is not None:
            self.live.update(Text(showable(self.line(step)), no_wrap=True, overflow="ellipsis"))
        elif self.shown and (step - self._printed >= self.total / 10 or step == self.total or step == self.start + 1):
            self._printed = step
            self.say(self.line(step))

    def line(self, step: int) -> str:
        """The progress line: ``step 120/1000  loss 1.23  seg 0.53 …  12.3 steps/s  1:11 left``."""
        left = int((self.total - step) / self.speed) if self.speed else 0
        losses = "  ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        width = len(str(self.total))
        return (
            f"step {step:>{width}}/{self.total}  {losses}  {self.speed:.3g} steps/s  {left // 60}:{left % 60:02d} left"
        )
