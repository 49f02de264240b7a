"""``garnish check --data``: the look at one split that training takes as well, printed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from garnish.checking.plain_data import Json
from garnish.output import say


def check_one_split(given: argparse.Namespace, overrides: Mapping[str, Json]) -> int:
    """Check and print; returns the exit code.

    Args:
        given: ``split``, ``limit``, ``backbone`` and ``json`` as given.
        overrides: the section ``data``.
    """
    from garnish.commands.printing import print_json
    from garnish.commands.words import open_given
    from garnish.data.check import check

    trunk = None
    if given.backbone is not None:
        from garnish.planning.shaped_trunk import ShapedTrunk

        trunk = ShapedTrunk(given.backbone).without_memory()
    split = given.split[0] if given.split else "train"
    report = check(open_given(overrides, split, "check"), limit=given.limit, trunk=trunk)
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
