"""Comparing a task of a data set with that of a model, so that labels of another meaning are refused.

Options are compared by their role (``Task.roles``), class names by ``Task.label_names``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from garnish.errors import OptionError, plural, shown
from garnish.output import logger
from garnish.registry import options_of
from garnish.tasks.task import Role, Task

_log = logger(__name__)

#: Most classes that an error lists one by one.
_SHOWN = 4
#: How to match class names (:func:`garnish.data.matched_classes.match_classes`): all of them, or those in both.
TO_MODEL = (
    "gn.match_classes(data, model), or garnish eval --match-classes refuse",
    'gn.match_classes(data, model, others="ignore"), or garnish eval --match-classes ignore',
)
#: The same for two data sets that are joined.
TO_FIRST = ("gn.match_classes(second, first)", 'gn.match_classes(second, first, others="ignore")')


def difference(
    mine: Task,
    theirs: Task,
    ours: str = "the model",
    other: str = "the data",
    match: tuple[str, str] = TO_MODEL,
) -> str:
    """How the labels of ``theirs`` differ from those of ``mine``, and what to do; empty if they are the same.

    It is not a difference if only one of them has class names.

    Args:
        mine: the task that is learnt.
        theirs: the task of the labels.
        ours: owner of the first, for the message.
        other: owner of the second.
        match: calls that give the second the ids of the first by name: if the first has all of its classes, and if
            some are missing.
    """
    if type(mine) is not type(theirs):
        one, two = type(theirs).__name__, type(mine).__name__
        return f"labels are for {one} in {other}, but for {two} in {ours}; make the two agree"
    here, there = mine.label_names, theirs.label_names
    if here is not None and there is not None and here != there:
        return _names(here, there, ours, other, match)
    if mine.channels != theirs.channels:
        return (
            f"labels are for {theirs.channels} channels (classes) in {other}, but for {mine.channels} in {ours};"
            " make the two agree"
        )
    for name, before, after in _unequal(mine, theirs, "labels"):
        return f"labels have {name} = {_short(after)} in {other}, but {_short(before)} in {ours}; make the two agree"
    return ""


def notes(mine: Task, theirs: Task, *, training: bool, ours: str = "the model", other: str = "the data") -> list[str]:
    """Lines about options in which two tasks without a :func:`difference` are not equal.

    Args:
        mine: the task that is learnt, whose options are used.
        theirs: the task of the labels.
        training: whether the loss is computed.
        ours: as for :func:`difference`.
        other: as for :func:`difference`.
    """
    found = []
    here, there = mine.label_names, theirs.label_names
    if (here is None) != (there is None):
        knows, names = (ours, here) if there is None else (other, there)
        found.append(f"only {knows} knows class names, so ids are taken to mean these: {_listed(names or ())}")
    for name, before, after in _unequal(mine, theirs, "counted"):
        found.append(f"{name} is {_short(after)} in {other}, {_short(before)} in {ours}; the latter is used")
    stated: list[Role] = ["metric", "loss"] if training else ["metric"]
    for role in stated:
        for name, before, after in _unequal(mine, theirs, role):
            default = next(f.default for f in dataclasses.fields(theirs) if f.name == name)
            if after != default:  # otherwise the data did not set it
                found.append(f"{name} = {_short(after)} of {other} is not used, but {_short(before)} of {ours}")
    return found


def same_labels(known: Task, task: Task, where: str) -> Task:
    """Of a task in two joined sets, the one with class names. Only these may be missing in one, which is logged.

    Raises:
        OptionError: any other difference; the message starts with ``where``.
    """
    before, after = options_of(known), options_of(task)
    for name in before:
        if before[name] != after[name] and task.roles.get(name) != "names":
            raise OptionError(
                f"{where}: has {name} = {after[name]!r}, but {before[name]!r} in a set before; make them equal, or give"
                " the task another name in one of them"
            )
    if before != after:
        for line in notes(known, task, training=False, ours="a set before", other="this set"):
            _log.warning("%s: %s", where, line)
    return known if known.label_names is not None else task


def _names(here: tuple[str, ...], there: tuple[str, ...], ours: str, other: str, match: tuple[str, str]) -> str:
    """Message about two different lists of class names."""
    places = [k for k, (a, b) in enumerate(zip(here, there, strict=False)) if a != b]
    found = [f"class {k} is {there[k]!r} in {other} and {here[k]!r} in {ours}" for k in places[:_SHOWN]]
    if len(places) > _SHOWN:
        found.append(f"… ({len(places)} such)")
    more, less = sorted(set(there) - set(here)), sorted(set(here) - set(there))
    if len(here) != len(there):
        found.append(f"{plural(len(there), 'class')} in {other}, {len(here)} in {ours}")
    found += [f"only in {other}: {_listed(more)}"] * bool(more) + [f"only in {ours}: {_listed(less)}"] * bool(less)
    if not more:
        return f"{', '.join(found)}; match them by name: {match[0]}"
    remedy = f"correct `classes` of {other}"
    if len(more) < len(there):
        remedy += f", or let what only {other} knows count as no label: {match[1]}"
    return f"{', '.join(found)}; {remedy}"


def _unequal(mine: Task, theirs: Task, role: Role) -> Iterator[tuple[str, object, object]]:
    """(option, value in ``mine``, value in ``theirs``) for the options of a role that differ."""
    for f in dataclasses.fields(mine):
        known: Role = "loss" if f.name == "weight" else "counted"
        if f.init and type(mine).roles.get(f.name, known) == role:
            before, after = getattr(mine, f.name), getattr(theirs, f.name)
            if before != after:
                yield f.name, before, after


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[: 2 * _SHOWN])
    return shown + (f", … ({len(names)} in all)" if len(names) > 2 * _SHOWN else "")


def _short(value: object) -> str:
    return shown(value)
