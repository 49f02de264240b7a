"""The command line: each verb is one file of :mod:`garnish.commands`, imported when it is used.

Nothing slow is imported here, so that ``garnish --help`` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from garnish.commands.parser import Parser
from garnish.errors import GarnishError, OptionError, one_line, shown, suggest
from garnish.output import logger, say

#: verb → what it does; the file of that name in :mod:`garnish.commands` has ``parser`` and ``run``
VERBS = {
    "train": "train adapters and heads as a recipe says",
    "eval": "measure a bundle on labelled pictures",
    "compare": "train methods and references under one budget, and write a report",
    "predict": "write the maps of pictures",
    "info": "count the parameters, bytes and operations of a bundle or a backbone",
    "plan": "list which methods fit a budget, without training",
    "merge": "fold adapters into the backbone and write a plain checkpoint",
    "export": "write a graph that runs without garnish, checked against the model",
    "peft": "write low-rank adapters in PEFT's format, and read them",
    "methods": "list adapters, heads, tasks and backbones, with their options",
    "check": "look through pictures and labels before training",
    "demo": "adapt the bundled backbone to four tasks, offline, in minutes",
    "version": "print versions",
}
_EXAMPLES = """\
examples:
  garnish demo
  garnish train --config recipes/camvid.yaml --adapter.rank 16
  garnish predict runs/camvid/best street.jpg --out maps
  garnish VERB --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``garnish``; None: those of this process.

    Returns:
        The exit code: 0; 1 for an unexpected error, or if ``check`` found errors; 2 for a mistake in options, data,
        bundles or weights; 130 after Ctrl-C.
    """
    if argv is None and Path().resolve() != Path(__file__).resolve().parents[1]:
        os.environ["PYTHONSAFEPATH"] = "1"  # processes that are started import nothing from the current folder either
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("GARNISH_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        with _log_to_stderr():
            return _run(words)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug)
    except GarnishError as error:
        return _fail(str(error), 2, debug)
    except BrokenPipeError:  # the reader of the pipe closed it, as head does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (for the flush at exit)
        return 0
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            return _unforeseen(error, debug)
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the path and its rights"
        place = f"{error.filename}: " if error.filename is not None else ""
        return _fail(f"{place}{error.strerror or one_line(error)}; {remedy}", 2, debug)
    except Exception as error:
        return _unforeseen(error, debug)


def _run(words: list[str]) -> int:
    parser = Parser(
        "garnish",
        "garnish [--version] [--debug] VERB …",
        "Teach one frozen vision backbone several dense tasks by training small adapters and heads.",
        "verbs:\n" + "\n".join(f"  {verb:<9} {text}" for verb, text in VERBS.items()) + "\n\n" + _EXAMPLES,
    )
    if not words:
        parser.print_help()
        return 0
    verb = "version" if words[0] == "--version" else words[0]
    if verb in ("-h", "--help"):
        parser.parse_args(["--help"])
    if verb not in VERBS:
        kind = "option" if verb.startswith("-") else "verb"
        raise OptionError(f"unknown {kind} {shown(verb)}{suggest(verb, VERBS)}")
    code: int = importlib.import_module(f"garnish.commands.{verb}").run(words[1:])
    return code


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


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        say(*traceback.format_exc().splitlines(), stderr=True)
    say(f"garnish: {one_line(message, 2000)}", stderr=True)
    return code


def _unforeseen(error: Exception, debug: bool) -> int:
    tail = "" if debug else "; run again with --debug (or GARNISH_DEBUG=1) for the traceback"
    return _fail(f"{type(error).__name__}: {one_line(error) or 'without a message'}{tail}", 1, debug)
