"""The command line: each verb is one file of :mod:`garnish.commands`, imported when it is used.

Nothing slow is imported here, so that ``garnish --help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from garnish.commands.parser import Parser
from garnish.errors import OptionError, shown, suggest
from garnish.output import run_told

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
    "serve": "answer requests for maps over HTTP, of many bundles on one trunk",
    "push": "publish a bundle on the Hugging Face Hub, with a card",
    "pull": "fetch a bundle from the Hugging Face Hub",
    "peft": "write low-rank adapters in PEFT's format, and read them",
    "methods": "list adapters, heads, tasks and backbones, with their options",
    "check": "find what is wrong with pictures and labels before training",
    "convert": "write a data set of any form as a plain folder",
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
        The exit code, as :func:`garnish.output.run_told` has them; also 1 if ``check`` found errors.
    """
    if argv is None and Path().resolve() != Path(__file__).resolve().parents[1]:
        os.environ["PYTHONSAFEPATH"] = "1"  # processes that are started import nothing from the current folder either
    return run_told("garnish", _run, sys.argv[1:] if argv is None else argv)


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
