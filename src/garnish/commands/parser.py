"""The argument parser of all subcommands: errors are one-line OptionErrors, and help ends with examples."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn, final

from garnish.checking.bounds import MOST_PIXELS, Size
from garnish.checking.plain_data import Json, fits
from garnish.checking.word_types import names as names
from garnish.checking.word_types import positive_int as positive_int
from garnish.checking.word_types import some_names as some_names
from garnish.errors import OptionError, one_line, shown, suggest
from garnish.recipes.overrides import split_overrides


@final
class Parser(argparse.ArgumentParser):
    """Argument parser of one subcommand.

    Args:
        prog: ``garnish train``.
        usage: its synopsis.
        description: what it does.
        epilog: further explanation and examples.
        sections: recipe sections that may be set by ``--section value`` and ``--section.key value``.
    """

    def __init__(
        self, prog: str, usage: str, description: str, epilog: str = "", *, sections: Sequence[str] = ()
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.sections = tuple(sections)
        self.verb = prog.removeprefix("garnish ")

    def read(self, words: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Json]]:
        """Parse a command line: the options, and dotted key → value of the recipe sections.

        Raises:
            OptionError: an unknown option, a missing argument, a value of the wrong type.
        """
        rest, overrides = split_overrides(words, self.sections)
        found, unknown = self.parse_known_args(rest)
        for action in self._actions:
            given = [o for w in rest if (o := w.partition("=")[0]) in action.option_strings]
            if len(given) > 1 and action.nargs != 0 and not isinstance(action, argparse._AppendAction):
                raise OptionError(f"{self.verb}: {given[0]} is given twice; give it once")
        if unknown:
            known = [o for action in self._actions for o in action.option_strings if o.startswith("--")]
            known += [f"--{section}" for section in self.sections]
            what = "option" if unknown[0].startswith("-") else "argument"
            near = suggest(unknown[0], dict.fromkeys(known), limit=30)
            dotted = "; keys of a section: --SECTION.KEY" if self.sections and what == "option" else ""
            raise OptionError(f"{self.verb}: unknown {what} {unknown[0]!r}{near}{dotted}")
        return found, overrides

    def error(self, message: str) -> NoReturn:
        """Raise OptionError instead of printing the usage and exiting."""
        raise OptionError(f"{self.verb}: {one_line(message)}; see {self.prog} --help")


def allows_loggers(parser: Parser) -> None:
    """Add the option that allows what a recipe must not allow itself."""
    parser.add_argument(
        "--allow-logger",
        metavar="CLASS,…",
        type=some_names,
        default=(),
        help="classes in train.log, besides Lightning's own, whose code may be run; a recipe cannot allow them itself",
    )


def sides(text: str) -> tuple[int, int]:
    """Parse ``224,280`` or ``224x280`` to (height, width), for ``type=``."""
    found = re.fullmatch("([0-9]{1,5})[x,]([0-9]{1,5})", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not fits(size, Size):
        raise argparse.ArgumentTypeError(
            f"{shown(text, 40)} is not a size; write height,width, each from 1 to 65,536 pixels and together at most"
            f" {MOST_PIXELS:,}, e.g. 224,280"
        )
    return size


#: Of ``--size``, for ``help=``.
SIZE_HELP = "own, train (as training scaled: aspect kept, nothing cropped) or H,W: resize pictures first (default: own)"


def size_rule(text: str) -> tuple[int, int] | str:
    """Parse ``own``, ``train``, or a size as :func:`sides` does, for ``type=``."""
    if text in ("own", "train"):
        return text
    try:
        return sides(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or own, or train") from None
