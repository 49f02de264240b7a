"""``garnish check``: find what is wrong with a data set before training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from garnish.checking.plain_data import Json
from garnish.commands.parser import Parser, positive_int, some_names
from garnish.errors import OptionError

_EPILOG = """\
DATA is looked at as a whole: every picture of every split, with the labels of all tasks, and what they say of each
other (docs/check.md lists the checks). Errors are what training would fail at, or learn nothing from; warnings look
wrong, by checks that are right in nine of ten cases; hints are worth a look. Exits with 1 if there are errors.
Of a folder without a description it is guessed what is there, and said why; --write keeps that as a data.yaml.
--page writes one HTML file that needs no network: counts, shares of classes, histograms, painted labels, and the
findings with pictures.

--data in place of DATA is the quick look at one split that training takes as well: errors are unreadable files, ids
beyond the class count, other sizes, NaN, no label at all; warnings are values that look wrong or do not count (depth
beyond max_metres, with its share). Also prints how often each class occurs, and of pictures with `channels` minimum,
maximum, mean, spread and share of no data of each band; with --backbone of 8-bit RGB as well, beside what it was
pretrained on.

examples:
  garnish check pictures/ --write data.yaml
  garnish check recipes/data/camvid.yaml --page check.html
  garnish check data.yaml --only shift,mirrored --split val --json
  garnish check --data recipes/data/camvid.yaml
  garnish check --data pictures/ --split val --limit 100 --json
  garnish check fields.yaml --backbone vit_small_patch14_dinov2
"""
#: Options that only the look at all splits has.
_OF_DOCTOR = ("page", "only", "jobs", "write", "fix")


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish check",
        "garnish check DATA [--write data.yaml] [--page FILE.html] [--fix FOLDER] [--only CHECK,…]\n"
        "                     [--split SPLIT …] [--limit N] [--jobs N] [--json]\n"
        "       garnish check --data DATA [--split train] [--limit N] [--backbone NAME] [--json]",
        "Find what is wrong with pictures and labels before training.",
        _EPILOG,
        sections=("data",),
    )
    made.add_argument("source", metavar="DATA", nargs="?", help="folder, data description (YAML), or recipe: all of it")
    made.add_argument("--page", metavar="FILE.html", help="write a page of all that was found, with pictures")
    made.add_argument("--fix", metavar="FOLDER", help="copy the set to a new folder, and mend there what safely can be")
    made.add_argument("--only", type=some_names, metavar="CHECK,…", help="only these checks (default: all)")
    made.add_argument("--jobs", type=positive_int, metavar="N", help="processes (default: one a processor, at most 8)")
    made.add_argument("--write", metavar="data.yaml", help="keep what is guessed of a folder as a description, first")
    made.add_argument("--data", metavar="DATA", help="quick look at one split of a description, folder, or scenes")
    made.add_argument("--split", action="append", metavar="SPLIT", help="only this split; of DATA, also several times")
    made.add_argument("--limit", type=positive_int, metavar="N", help="read at most N pictures a split, evenly spaced")
    made.add_argument("--backbone", metavar="NAME", help="compare the bands with what this backbone expects")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    if _is_quick(given, overrides):
        from garnish.commands.check_one_split import check_one_split

        return check_one_split(given, overrides)
    from garnish.commands.check_set import check_set

    return check_set(given)


def _is_quick(given: argparse.Namespace, overrides: dict[str, Json]) -> bool:
    """Whether one split is looked at, or all; raises OptionError where the words ask for both.

    ``--backbone`` asks for one: DATA then means the same as ``--data DATA``.
    """
    sections = [key for key in overrides if key.partition(".")[0] == "data"]
    if given.source is not None and given.backbone is not None and not sections:
        for name in _OF_DOCTOR:
            if getattr(given, name) is not None:
                raise OptionError(f"check: --backbone looks at one split, --{name} at all; give one of the two")
        overrides["data"], given.source, sections = given.source, None, ["data"]
    if given.source is not None and sections:
        raise OptionError(
            f"check: {given.source!r} and --{sections[0]}; give DATA alone for all its splits, --data alone for one"
        )
    if given.source is None and not sections:
        raise OptionError("check: nothing to look at; give a folder or a data description (YAML)")
    quick = given.source is None
    for name in _OF_DOCTOR if quick else ():
        if getattr(given, name) is not None:
            raise OptionError(f"check: --{name} needs DATA in place of --data")
    if given.fix is not None and given.limit is not None:
        raise OptionError("check: --fix and --limit; only what is looked at can be mended, so leave --limit out")
    if quick and len(given.split or ()) > 1:
        raise OptionError("check: --split is given twice; --data looks at one split, DATA alone at several")
    return quick
