"""``garnish demo``: adapt the bundled backbone to four tasks, offline."""

from __future__ import annotations

from collections.abc import Sequence

from garnish.commands.parser import Parser

_EPILOG = """\
example:
  garnish demo --out demo
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish demo",
        "garnish demo [--out DIR]",
        "Adapt the bundled backbone to four tasks on procedural scenes, offline; heads only, adapters and full "
        "fine-tuning side by side.",
        _EPILOG,
    )
    made.add_argument("--out", metavar="DIR", default="demo", help="folder for table, sheet and plot (default: demo)")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.files.given_pictures import folder_to_write

    folder_to_write(given.out)
    from garnish.demo import run_demo

    run_demo(given.out)
    return 0
