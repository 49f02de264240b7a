"""Fault: one thing that the doctor found, with files, values and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from garnish.checking.plain_data import Json

#: "error": training would fail, or learn from nothing. "warning": it looks wrong, and the check that says so was right
#: in nine of ten cases where it was measured (docs/check.md). "hint": worth a look.
Level = Literal["error", "warning", "hint"]
#: From the worst down.
LEVELS: tuple[Level, ...] = ("error", "warning", "hint")


@final
@dataclass(frozen=True, kw_only=True)
class Fault:
    """One finding about one file, several, or the whole set.

    Attributes:
        check: name of the check.
        level: how much it matters.
        message: one line: what, where (the first file), which values, how many of how many.
        remedy: one line: what to do.
        split: the split it was found in; None: in all together.
        tasks: names of the tasks it is about; empty: the pictures.
        files: paths of all files concerned as text, the one with the clearest fault first.
        names: names of the pictures that these belong to, in the same order; for thumbnails.
        fix: what ``--fix`` does to each of ``files`` in a copy of the set, as the check's ``fixes`` names it; None:
            nothing safe can be done.
        write: keys of the description by their path (``tasks.depth.invalid``) and what is to stand there, which
            ``--fix`` writes into the copy's description; empty: nothing.
    """

    check: str
    level: Level
    message: str
    remedy: str
    split: str | None = None
    tasks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    fix: str | None = None
    write: Mapping[str, Json] = field(default_factory=dict)
