"""Progress on standard error: one line that is drawn anew on a terminal, else a line after each tenth of the work.

The line of a terminal never wraps, whatever is in it and however narrow the terminal is: whoever counts says the same
in several lengths, and the first that fits is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from garnish.errors import showable
from garnish.output import console

#: Most seconds that are shown as time left: 999 hours.
_MOST_SECONDS = 3600 * 999


@final
class LiveLine:
    """Draws how far something is; a context manager, which draws nothing before it is entered.

    One thread at a time may call it.

    Args:
        total: what is to be done, in the caller's units; None: not known, so that nothing is printed where there is no
            terminal.
        done: of it at the start.
        shown: False: nothing is drawn, and only warnings are printed.
    """

    def __init__(self, total: int | None, done: int = 0, *, shown: bool = True) -> None:
        self.total, self.shown = total, shown
        self.console = console(stderr=True)
        self._line = _FittedLine()
        self.live: Live | None = None
        if shown and self.console.is_terminal:
            self.live = Live(self._line, console=self.console, refresh_per_second=4)
        self._printed = done

    def __enter__(self) -> LiveLine:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, done: int, lengths: Iterable[str], *, due: bool = False) -> None:
        """Show that ``done`` is done.

        Args:
            done: in the units of ``total``.
            lengths: the line, in full and then shorter and shorter. Of a generator only what is needed is asked for:
                nothing where no line is printed now.
            due: print the line in full where there is no terminal, even if no further tenth is done.
        """
        if self.live is not None:
            self._line.lengths = [showable(line) for line in lengths]
        elif self.shown and self.total is not None and (due or done - self._printed >= self.total / 10):
            self._printed = done
            self.say(next(iter(lengths)))

    def say(self, text: str) -> None:
        """Print text above the line, if progress is shown."""
        if self.shown and text:
            self.console.print(showable(text, keep="\n"))

    def warn(self, text: str) -> None:
        """Print a warning, even if progress is not shown."""
        self.console.print(showable(f"warning: {text}"), style="yellow")


@final
class _FittedLine:
    """What is drawn: the longest text that the terminal has room for at this moment."""

    def __init__(self) -> None:
        self.lengths: Sequence[str] = [""]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """As rich asks for it, at every drawing."""
        yield Text(fitting(self.lengths, options.max_width - 1), no_wrap=True, overflow="ellipsis", end="")


def fitting(lengths: Sequence[str], columns: int) -> str:
    """The first text of at most ``columns`` cells of a terminal; if none is, the last one, cut to them with ``…``.

    The last column of a terminal is best left free: some move on to the next line when it is written.
    """
    for line in lengths:
        if cell_len(line) <= columns:
            return line
    cut = Text(lengths[-1])
    cut.truncate(max(columns, 0), overflow="ellipsis")
    return cut.plain


def clock(seconds: float) -> str:
    """A duration as ``1:05`` or ``1:02:05``, as of a clock; at most 999 hours."""
    whole = round(min(max(seconds, 0), _MOST_SECONDS))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
