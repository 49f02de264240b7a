"""Where an item of a source has its picture and the labels of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from garnish.errors import DataError, OptionError, shown, suggest

#: A key of a mapping, a position in a tuple, or a way of several: ``(1, "mask")`` is ``item[1]["mask"]``.
Column = str | int | tuple[str | int, ...]
#: What ``columns`` call the picture.
IMAGE = "image"


@final
class Columns:
    """Takes items apart.

    An item is ``(picture, target)``, where the target is that of the one task, or a mapping by task; or a mapping that
    holds all.

    Args:
        tasks: names of the tasks.
        given: ``image`` or a task → where it is; a name of its own where it is left out.

    Raises:
        OptionError: a key that is neither ``image`` nor a task.
    """

    def __init__(self, tasks: Sequence[str], given: Mapping[str, Column]) -> None:
        for name in given:
            if name not in (IMAGE, *tasks):
                raise OptionError(f"dataset: columns: unknown entry {shown(name)}{suggest(name, (IMAGE, *tasks))}")
        self.tasks, self.given = tuple(tasks), dict(given)

    def picture(self, item: Any, where: str) -> Any:
        """The picture of an item, as it stands there.

        Raises:
            DataError: an item of another form, or without a picture.
        """
        if IMAGE in self.given:
            found = _at(item, self.given[IMAGE], IMAGE, where, lacks=False)
        elif _fields(item) is not None:
            found = _at(item, IMAGE, IMAGE, where, lacks=False)
        elif isinstance(item, tuple | list) and item and not _is_numbers(item):
            found = item[0]
        else:
            raise DataError(f"{where}: is {_form(item)}; give (picture, target), or a dictionary with {IMAGE!r}")
        if found is None:
            raise DataError(f"{where}: its picture is None; leave such items out of the set")
        return found

    def labels(self, item: Any, where: str) -> dict[str, Any]:
        """Task → what an item has for it; tasks of which it has None, or not the key, are left out.

        Raises:
            DataError: a target of which nothing says whose it is.
        """
        found = {task: self._label(item, task, where) for task in self.tasks}
        return {task: value for task, value in found.items() if value is not None}

    def _label(self, item: Any, task: str, where: str) -> Any:
        """What an item has for a task; None: nothing."""
        column = self.given.get(task, task)
        if _fields(item) is not None:
            return _at(item, column, task, where, lacks=True)
        if not isinstance(item, tuple | list):
            raise DataError(f"{where}: is {_form(item)}; give (picture, target), or a dictionary with {task!r}")
        if not isinstance(column, str):
            return _at(item, column, task, where, lacks=True)
        if len(item) != 2:
            raise DataError(
                f"{where}: has {len(item)} entries, and nothing says which is {task!r}; write"
                f" columns={{{self._example(tuple(range(1, len(item))))}}}"
            )
        target = item[1]
        if target is None or _fields(target) is not None:
            return None if target is None else _at(target, column, task, where, lacks=True)
        if isinstance(target, tuple | list) and not _is_numbers(target):
            raise DataError(
                f"{where}: has {len(target)} targets, and nothing says which is {task!r}; write"
                f" columns={{{self._example(tuple((1, k) for k in range(len(target))))}}}"
            )
        if len(self.tasks) > 1:
            raise DataError(
                f"{where}: has one target, and there are the tasks {', '.join(self.tasks)}; give a dictionary by task,"
                f" (picture, {{{self.tasks[0]!r}: …}}), or write columns={{{task!r}: 1, …}} for those that share it"
            )
        return target

    def _example(self, places: tuple[Column, ...]) -> str:
        return ", ".join(f"{task!r}: {place}" for task, place in zip(self.tasks, places, strict=False))


def keys_of(item: Any) -> tuple[str, ...]:
    """The keys by which labels may be found in an item: its own, or those of the mapping beside its picture."""
    if isinstance(item, tuple | list) and len(item) == 2 and _fields(item) is None:
        item = item[1]
    return tuple(map(str, _fields(item) or ()))


def _at(item: Any, column: Column, name: str, where: str, *, lacks: bool) -> Any:
    """What stands in a column of an item.

    Args:
        item: a mapping, or a tuple.
        column: where.
        name: ``image`` or the task.
        where: the item, for messages.
        lacks: a key that is not there is None, not an error.
    """
    way = column if isinstance(column, tuple) else (column,)
    for step in way:
        fields = _fields(item)
        if isinstance(step, str) and fields is not None:
            if step not in fields:
                if lacks:
                    return None
                entries = ", ".join(map(shown, fields))
                raise DataError(
                    f"{where}: has no {step!r}, but {entries}; write columns={{{name!r}: …}} with one of them"
                )
            item = item[step] if isinstance(item, Mapping) else getattr(item, step)
        elif isinstance(step, int) and isinstance(item, tuple | list) and -len(item) <= step < len(item):
            item = item[step]
        elif item is None and lacks:
            return None
        else:
            raise DataError(f"{where}: columns: {name!r} is at {shown(column)}, but there is {_form(item)}; correct it")
    return item


def _fields(item: Any) -> tuple[Any, ...] | None:
    """Keys of a mapping, or of a tuple with names; None: it has none."""
    if isinstance(item, Mapping):
        return tuple(item)
    found = getattr(item, "_fields", None) if isinstance(item, tuple) else None
    return None if found is None else tuple(found)


def _is_numbers(value: Sequence[Any]) -> bool:
    """Whether a list holds rows of numbers, as maps written as lists do."""
    first: Any = value
    while isinstance(first, tuple | list) and first:
        first = first[0]
    return isinstance(first, int | float)


def _form(item: Any) -> str:
    """What an item is, for a message."""
    if isinstance(item, Mapping):
        return f"a dictionary of {', '.join(map(shown, list(item)[:8])) or 'nothing'}"
    if isinstance(item, tuple | list):
        return f"a {type(item).__name__} of {len(item)}"
    shape = getattr(item, "shape", None)
    return f"{type(item).__name__} of shape {tuple(shape)}" if isinstance(shape, tuple) else type(item).__name__
