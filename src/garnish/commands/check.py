"""``garnish check``: look through pictures and labels before training."""

from __future__ import annotations

from collections.abc import Sequence

from garnish.commands.parser import Parser, positive_int
from garnish.output import say

_EPILOG = """\
Errors are faults that training would fail at (unreadable files, ids beyond the class count, other sizes, NaN, no label
at all); warnings are values that look wrong or do not count (depth beyond max_metres, with its share). Exits with 1 if
there are errors. Also prints how often each class occurs, and of pictures with `channels` minimum, maximum, mean,
spread and share of no data of each band; with --backbone of 8-bit RGB as well, beside what it was pretrained on.

examples:
  garnish check --data recipes/data/camvid.yaml
  garnish check --data pictures/ --split val --limit 100 --json
  garnish check --data fields.yaml --backbone vit_small_patch14_dinov2
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish check",
        "garnish check --data DATA [--split train] [--limit N] [--backbone NAME] [--json]",
        "Look through pictures and labels before training.",
        _EPILOG,
        sections=("data",),
    )
    made.add_argument("--data", metavar="DATA", help="data description (YAML), folder, or scenes")
    made.add_argument("--split", default="train", help="which part of the data (default: train)")
    made.add_argument("--limit", type=positive_int, metavar="N", help="read at most N pictures, evenly spaced")
    made.add_argument("--backbone", metavar="NAME", help="compare the bands with what this backbone expects")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    from garnish.commands.printing import print_json
    from garnish.commands.words import open_given
    from garnish.data.check import check

    trunk = None
    if given.backbone is not None:
        from garnish.planning.shaped_trunk import ShapedTrunk

        trunk = ShapedTrunk(given.backbone).without_memory()
    report = check(open_given(overrides, given.split, "check"), limit=given.limit, trunk=trunk)
    if given.json:
        labels = {
            task: {name: getattr(c, name) for name in ("maps", "labelled", "total", "shares", "orientation")}
            | ({"class_weights": c.class_weights()} if c.names else {})
            | ({"outside": {why: vars(o) for why, o in c.outside.items()}} if c.outside else {})
            for task, c in report.labels.items()
        }
        told = {name: getattr(report, name) for name in ("pictures", "checked", "errors", "warnings")}
        bands = {"bands": {name: vars(facts) for name, facts in report.bands.items()}} if report.bands else {}
        print_json(told | {"labels": labels} | bands)
    else:
        say(*str(report).split("\n"))
    return 1 if report.errors else 0
