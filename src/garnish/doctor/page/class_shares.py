"""Shares of classes as the page shows them: a row a class, a bar a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from garnish.doctor.diagnosis import Diagnosis

#: Classes whose bars are shown at once; the others are behind a click. Classes that are listed in all.
_FIRST, _MOST = 20, 300


@final
@dataclass(frozen=True)
class ShareRow:
    """One class.

    Attributes:
        name: of the class.
        colour: "#rrggbb" that its pixels are painted in; None: not known.
        shares: split → (share of the label pixels in [0, 1], share of the largest bar of the table in [0, 1]); None:
            the split has no label of the task.
    """

    name: str
    colour: str | None
    shares: Mapping[str, tuple[float, float] | None]


@final
@dataclass(frozen=True)
class ShareTable:
    """The classes of one task, the most frequent first.

    Attributes:
        task: its name.
        splits: names of the columns.
        rows: those shown at once.
        others: those behind a click.
        unlisted: number of classes that are left out.
        labelled: split → share of pixels with a label.
    """

    task: str
    splits: Sequence[str]
    rows: Sequence[ShareRow]
    others: Sequence[ShareRow]
    unlisted: int
    labelled: Mapping[str, float | None]


def share_tables(diagnosis: Diagnosis, legends: Mapping[str, Mapping[str, tuple[int, int, int]]]) -> list[ShareTable]:
    """A table for each task whose pixels are counted by class.

    Args:
        diagnosis: of the set.
        legends: task → class → its colour.
    """
    made = []
    for task in diagnosis.tasks:
        counts = {split: facts.counts.get(task) for split, facts in diagnosis.splits.items()}
        names = list(dict.fromkeys(name for one in counts.values() if one for name in one.names))
        if not names:
            continue
        shares = {split: None if one is None else one.shares for split, one in counts.items()}
        highest = {name: max(own.get(name, 0.0) for own in shares.values() if own is not None) for name in names}
        scale = max(highest.values()) or 1.0
        rows = [
            ShareRow(
                name,
                _hex(legends.get(task, {}).get(name)),
                {
                    split: None if own is None else (own.get(name, 0.0), own.get(name, 0.0) / scale)
                    for split, own in shares.items()
                },
            )
            for name in sorted(names, key=lambda name: -highest[name])
        ]
        labelled = {s: None if one is None else one.labelled / max(one.total, 1) for s, one in counts.items()}
        made.append(
            ShareTable(task, list(counts), rows[:_FIRST], rows[_FIRST:_MOST], max(len(rows) - _MOST, 0), labelled)
        )
    return made


def _hex(colour: tuple[int, int, int] | None) -> str | None:
    return None if colour is None else "#{:02x}{:02x}{:02x}".format(*colour)
