"""Remapping the class ids of a data set to those of a model, or of another data set, by class name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, final

import torch
from torchvision import tv_tensors

from garnish.checking.arguments import checked
from garnish.data.dataset import Dataset, Sample
from garnish.data.picture_key import digest
from garnish.errors import OptionError, plural, suggest
from garnish.model.model import Model
from garnish.output import logger
from garnish.pictures.bands import Bands
from garnish.targets.target import IGNORE
from garnish.tasks.agreement import notes
from garnish.tasks.task import Task

_log = logger(__name__)


@checked
def match_classes(
    data: Dataset, like: Model | Dataset | Mapping[str, Task], *, others: Literal["refuse", "ignore"] = "refuse"
) -> Dataset:
    """The same pictures, with class ids remapped to those that ``like`` has for the same class names.

    Args:
        data: pictures whose tasks have class names.
        like: whose ids to take, for every task that has class names in both.
        others: what to do with classes that ``like`` lacks: "refuse", or "ignore": their pixels have no label (255).

    Returns:
        A data set whose matched tasks are those of ``like``; other tasks, and the pictures, are unchanged.

    Raises:
        OptionError: no task with class names in both, or a class that ``like`` lacks.

    Example:
        >>> data, others = gn.Scenes(2, tasks=("seg",)), gn.Scenes(2, seed=1, tasks=("seg",))
        >>> gn.match_classes(data, others).tasks["seg"] == others.tasks["seg"]
        True
    """
    known = like if isinstance(like, Mapping) else like.tasks
    tables: dict[str, tuple[int, ...]] = {}
    matched: dict[str, Task] = {}
    for name, theirs in data.tasks.items():
        mine = known.get(name)
        if mine is None or type(mine) is not type(theirs):
            continue
        if mine.label_names is None or theirs.label_names is None or not mine.target.categorical:
            continue
        where = f"{data.name}: task {name!r}"
        of = "the model" if isinstance(like, Model) else "the other set"
        tables[name] = _table(where, theirs.label_names, mine.label_names, others, of)
        moved = sum(new not in (old, IGNORE) for old, new in enumerate(tables[name]))
        told = f"{moved} of {plural(len(tables[name]), 'class')} got another id" if moved else "all ids were the same"
        _log.info("%s: classes were matched by name with those of %s; %s", where, of, told)
        matched[name] = mine
        for line in notes(mine, theirs, training=True):
            _log.warning("%s: task %r: %s", data.name, name, line)
    if not matched:
        raise OptionError(f"{data.name}: no task has class names on both sides, so none can be matched; name `classes`")
    return _Matched(data, matched, tables)


def _table(where: str, theirs: tuple[str, ...], mine: tuple[str, ...], others: str, of: str) -> tuple[int, ...]:
    """New id for each id of ``theirs``; ``of`` names the owner of ``mine`` in messages."""
    lacking = [name for name in theirs if name not in mine]
    if lacking and others == "refuse":
        near = suggest(lacking[0], mine)
        raise OptionError(
            f"{where}: has {plural(len(lacking), 'class')} that {of} lacks, first {lacking[0]!r}{near};"
            ' correct `classes`, or let such pixels have no label: others="ignore" (--match-classes ignore)'
        )
    if len(lacking) == len(theirs):
        raise OptionError(f"{where}: shares no class with {', '.join(mine)}; correct `classes`")
    if lacking:
        _log.warning("%s: pixels of %s have no label", where, ", ".join(lacking))
    if absent := [name for name in mine if name not in theirs]:
        _log.warning("%s: has no pixel of the classes %s of %s", where, ", ".join(absent), of)
    return tuple(mine.index(name) if name in mine else IGNORE for name in theirs)


@final
class _Matched(Dataset):
    """A data set with class ids remapped by :func:`match_classes`."""

    def __init__(self, whole: Dataset, matched: Mapping[str, Task], tables: Mapping[str, tuple[int, ...]]) -> None:
        self.whole = whole
        self._tasks = {**whole.tasks, **matched}
        self._tables = dict(tables)

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def tasks(self) -> Mapping[str, Task]:
        return self._tasks

    @property
    def bands(self) -> Bands:
        return self.whole.bands

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        sample = self.whole[index]
        targets = dict(sample.targets)
        for name, table in self._tables.items():
            if name in targets:
                self.whole.tasks[name].check_target(targets[name], sample.name)
                new = torch.full((IGNORE + 1,), IGNORE)
                new[: len(table)] = torch.tensor(table)
                targets[name] = tv_tensors.wrap(new[targets[name].long()], like=targets[name])
        return dataclasses.replace(sample, targets=targets)

    def image(self, index: int) -> tv_tensors.Image:
        return self.whole.image(index)

    def place(self, index: int) -> tuple[Dataset, int]:
        return self.whole, index

    def content(self, index: int) -> Mapping[str, str]:
        moved = {name: table for name, table in self._tables.items() if table != tuple(range(len(table)))}
        own = {"class ids, as they were matched by name": str(sorted(moved.items()))} if moved else {}
        return {**self.whole.content(index), **own}

    def key(self, index: int) -> str | None:
        key = self.whole.key(index)
        return None if key is None else digest("matched", key, sorted(self._tables.items()))
