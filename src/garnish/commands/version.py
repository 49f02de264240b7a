"""``garnish version``: versions of garnish and its main dependencies."""

from __future__ import annotations

from collections.abc import Sequence

from garnish.commands.parser import Parser
from garnish.output import say
from garnish.reporting.versions import all_versions, main_versions

_EPILOG = """\
examples:
  garnish version
  garnish version --all     # for a report of a fault
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish version",
        "garnish version [--all] [--json]",
        "Print the versions of garnish and of its main dependencies.",
        _EPILOG,
    )
    made.add_argument(
        "--all", action="store_true", help="of all that may matter to a fault; system, devices, threads and extras too"
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    found = all_versions() if given.all else main_versions()
    if given.json:
        from garnish.commands.printing import print_json

        print_json(found)
    else:
        say(*(f"{name} {number}" for name, number in found.items()))
    return 0
