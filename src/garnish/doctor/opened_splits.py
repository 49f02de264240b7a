"""Opening all splits of a data set on disk for the doctor, and what is wrong with them as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from garnish.checking.plain_data import Json
from garnish.data.description import Description
from garnish.data.folder import FolderDataset, description_of
from garnish.doctor.fault import Fault
from garnish.errors import DataError, OptionError, shown, suggest

#: Splits that are looked for where a description does not list any; training cannot do without the first two.
USUAL = ("train", "val", "test")
_TRAINED = USUAL[:2]


@final
@dataclass(eq=False)
class OpenedSplits:
    """The splits of one set.

    Attributes:
        sets: the opened splits, train, val and test first.
        faults: what is wrong with splits as a whole.
        skipped: what was left out and why, a line each.
        unopened: why splits could not be opened, a line each; they are among faults or skipped.
    """

    sets: list[FolderDataset] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)


def open_splits(
    source: str | Path | Mapping[str, Json] | Description,
    splits: Sequence[str] | None = None,
    root: str | Path | None = None,
) -> OpenedSplits:
    """Open splits of a set with all tasks that they have labels of.

    Args:
        source: as :func:`garnish.data.folder.folder` takes it, or a description that was read already, so that a
            folder is not guessed once more.
        splits: names; None: all that the description lists, else train, val, test and the folders where ``{split}``
            stands in its pattern; a val that is held out is among them.
        root: as there.

    Raises:
        DataError: none can be opened. OptionError: no such split, or a wrong description.
    """
    description = source if isinstance(source, Description) else description_of(source, root)
    known = description.known_splits()
    wanted = known if splits is None else list(dict.fromkeys(splits))
    for name in wanted:
        if name not in known:
            raise OptionError(f"{description.source}: no split {shown(name)}{suggest(name, known)}")
    made = OpenedSplits()
    for name in sorted(wanted, key=lambda name: (USUAL.index(name) if name in USUAL else len(USUAL), name)):
        _open(made, description, name)
    if not made.sets:
        raise DataError(
            made.unopened[0] if made.unopened else f"{description.source}: holds no pictures; correct `path`"
        )
    return made


def _open(made: OpenedSplits, description: Description, split: str) -> None:
    try:
        made.sets.append(FolderDataset(description, split))
        return
    except DataError as error:
        whole = error
    there: list[str] = []
    lacking: dict[str, str] = {}
    for task in description.tasks:
        try:
            FolderDataset(description, split, [task])
            there.append(task)
        except DataError as error:
            lacking[task] = str(error)
    if not there:
        made.unopened.append(str(whole))
        _tell(made, split, (), str(whole))
        return
    for task, message in lacking.items():
        _tell(made, split, (task,), message)
    made.sets.append(FolderDataset(description, split, there))


def _tell(made: OpenedSplits, split: str, tasks: tuple[str, ...], message: str) -> None:
    """An error where training would fail; elsewhere the split or the task is skipped, which is told."""
    if split not in _TRAINED:
        made.skipped.append(message)
        return
    what, _, remedy = message.rpartition("; ")
    made.faults.append(
        Fault(check="reading", level="error", message=what or message, remedy=remedy, split=split, tasks=tasks)
    )
