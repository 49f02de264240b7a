"""``garnish version``: versions of garnish and its main dependencies."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from garnish import __version__
from garnish.commands.parser import Parser
from garnish.output import say

_BESIDE = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors")


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish version",
        "garnish version [--json]",
        "Print the versions of garnish and of its main dependencies.",
        "example:\n  garnish version",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    found = {"garnish": __version__, "python": platform.python_version()}
    for name in _BESIDE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    if given.json:
        from garnish.commands.printing import print_json

        print_json(found)
    else:
        say(*(f"{name} {number}" for name, number in found.items()))
    return 0
