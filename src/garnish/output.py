"""What garnish tells people: lines, consoles, logs, errors. Strangers' text in it is made showable in this one place.

Names of files, classes and tasks, licences and sources come from strangers' files; a terminal acts on the control
characters in them. So nothing else in garnish prints, makes a console or gets a logger.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from garnish.errors import GarnishError, one_line, showable

if TYPE_CHECKING:  # rich takes a tenth of a second to import
    from rich.console import Console


def say(*lines: object, stderr: bool = False) -> None:
    """Print lines, each of them one line whatever is in it."""
    for line in lines:
        print(showable(str(line)), file=sys.stderr if stderr else sys.stdout, flush=stderr)


def showable_json(text: str) -> str:
    """JSON text that holds the same with its control characters and marks of direction escaped, line breaks kept."""
    import json  # the command's help does without

    return showable(text, keep="\n", escape=lambda char: json.dumps(char)[1:-1])


def console(*, stderr: bool = False) -> Console:
    """A console of rich for standard output or error that shows text as it is: no markup, no control characters.

    Text that is given as :class:`rich.text.Text` must be showable already.
    """
    from rich.console import Console
    from rich.text import Text

    @final
    class Showing(Console):
        def render_str(self, text: str, **options: object) -> Text:
            return super().render_str(showable(text, keep="\n"), **options)  # type: ignore[arg-type]

    # the stream of now, which may be redirected later: a run's output goes on to where it began
    file = sys.stderr if stderr else sys.stdout
    return Showing(file=file, highlight=False, markup=False, emoji=False, soft_wrap=stderr)


@final
class _Showable(logging.Filter):
    """Makes the message of each record one line that can be shown; never drops one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = showable(record.getMessage()), ()
        return True


_SHOWABLE = _Showable()


def logger(name: str) -> logging.Logger:
    """The logger of a module. The filter stands here since those of ``garnish`` do not see what its children log."""
    found = logging.getLogger(name)
    found.addFilter(_SHOWABLE)
    return found


def unheard(name: str) -> None:
    """Drop what another library's logger says for good; Python itself would print it to standard error."""
    logging.getLogger(name).addHandler(logging.NullHandler())


@contextmanager
def muted(*names: str) -> Iterator[None]:
    """Without the messages of others' loggers below errors, within a ``with`` block."""
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@contextmanager
def only_lines(form: logging.Formatter, levels: Mapping[str, int]) -> Iterator[None]:
    """Within a ``with`` block all log lines and warnings of this process go to standard error in one form.

    Args:
        form: makes lines, which must be showable.
        levels: logger ("": the root) → from which level on its lines are shown; other handlers of these are left out.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    before = []
    for name, level in {"": logging.WARNING, **levels}.items():
        log = logging.getLogger(name)
        before.append((log, log.handlers, log.level, log.propagate))
        log.handlers, log.propagate = [], True
        log.setLevel(level)
    logging.getLogger().handlers = [handler]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for log, handlers, level, propagate in before:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)


def run_told(program: str, run: Callable[[list[str]], int], argv: Sequence[str]) -> int:
    """Run a command of a shell: logs go to standard error, an error is one line there, behind the program's name.

    Args:
        program: what is called.
        run: takes the words and gives the exit code.
        argv: the words after the program; ``--debug`` among them, or GARNISH_DEBUG, asks for tracebacks.

    Returns:
        The exit code: that of ``run``; 1 for an unexpected error; 2 for a mistake in options, data, bundles or weights;
        130 after Ctrl-C.
    """
    words = list(argv)
    debug = "--debug" in words or os.environ.get("GARNISH_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        with _log_to_stderr():
            return run(words)
    except KeyboardInterrupt:
        return _fail(program, "interrupted", 130, debug)
    except GarnishError as error:
        return _fail(program, str(error), 2, debug)
    except BrokenPipeError:  # the reader of the pipe closed it, as head does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (for the flush at exit)
        return 0
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            return _unforeseen(program, error, debug)
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the path and its rights"
        place = f"{error.filename}: " if error.filename is not None else ""
        return _fail(program, f"{place}{error.strerror or one_line(error)}; {remedy}", 2, debug)
    except Exception as error:
        return _unforeseen(program, error, debug)


def _fail(program: str, message: str, code: int, debug: bool) -> int:
    if debug:
        say(*traceback.format_exc().splitlines(), stderr=True)
    say(f"{program}: {one_line(message, 2000)}", stderr=True)
    return code


def _unforeseen(program: str, error: Exception, debug: bool) -> int:
    tail = "" if debug else "; run again with --debug (or GARNISH_DEBUG=1) for the traceback"
    return _fail(program, f"{type(error).__name__}: {one_line(error) or 'without a message'}{tail}", 1, debug)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Print garnish's log messages, without a prefix, on standard error within a ``with`` block."""
    log, handler = logger("garnish"), logging.StreamHandler()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
