"""Class names that a source tells of its labels, held against those of the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from garnish.data.held.columns import Columns
from garnish.errors import OptionError
from garnish.output import logger
from garnish.tasks.agreement import difference
from garnish.tasks.task import Task

_log = logger(__name__)

#: How the two are made to agree: where the data has all of the task's names, and where it has not.
_REMEDY = "classes=[…] in the order of the data", "labels={TASK: {'map': {…}, 'others': 255}}"
#: How deep the feature of a class lies within those of rows and columns.
_DEEPEST = 4


def compare_names(mine: Any, tasks: Mapping[str, Task], columns: Columns, name: str) -> None:
    """Hold the class names of a source against those of the tasks; a task without names is told them.

    Names of a column stand in ``mine.features[column]`` (the features of Hugging Face's ``datasets``), as its
    ``names`` or that of what it is a list of. ``mine.classes`` (torchvision) may be of whole pictures, so it is held
    against the one task of classes only where its names are the task's in another order.

    Raises:
        OptionError: another order of the same names; of a column, any other names.
    """
    classed = {task: made for task, made in tasks.items() if made.target.categorical and hasattr(made, "classes")}
    features = getattr(mine, "features", None)
    for task, made in classed.items():
        column = columns.given.get(task, task)
        told = _names_of(features[column]) if isinstance(features, Mapping) and column in features else ()
        if told:
            _compare(made, told, f"dataset: {name}: tasks.{task}")
    of_set = getattr(mine, "classes", None)
    if len(classed) == 1 and isinstance(of_set, list | tuple) and all(isinstance(one, str) for one in of_set):
        ((task, made),) = classed.items()
        if made.label_names is not None and sorted(of_set) == sorted(made.label_names):
            _compare(made, tuple(of_set), f"dataset: {name}: tasks.{task}")


def _compare(task: Task, names: tuple[str, ...], where: str) -> None:
    if task.label_names is None:
        if task.channels == len(names):
            _log.info("%s: the data call its classes %s; classes=[…] keeps names in the model", where, _listed(names))
            return
        raise OptionError(
            f"{where}: {task.channels} classes, but the data have {len(names)}: {_listed(names)}; write classes=[…]"
        )
    theirs = type(task)(classes=names)  # type: ignore[call-arg]
    if differs := difference(theirs, task, "the data", "the task", _REMEDY):
        raise OptionError(f"{where}: {differs}")


def _names_of(feature: Any) -> tuple[str, ...]:
    """The class names of a column's feature; empty: it has none."""
    for _ in range(_DEEPEST):
        names = getattr(feature, "names", None)
        if isinstance(names, list | tuple) and all(isinstance(one, str) for one in names):
            return tuple(names)
        inner = getattr(feature, "feature", None)
        if inner is None and isinstance(feature, list) and len(feature) == 1:
            inner = feature[0]
        feature = inner
    return ()


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" … ({len(names)} in all)" if len(names) > 6 else "")
