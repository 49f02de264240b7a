"""One entry under ``tasks`` of a data description: the task, and the reader of its label files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from garnish import registry
from garnish.checking.plain_data import Json
from garnish.data.labels.choosing import chosen_reader, label_options, options_of_reader, reader_of
from garnish.data.labels.reader import Reader
from garnish.errors import OptionError, suggest
from garnish.tasks.task import Task


@final
@dataclass(frozen=True)
class Labelled:
    """One task of a data set with its reader.

    Attributes:
        task: the task.
        labels: the reader of its label files.
    """

    task: Task
    labels: Reader


def labelled(entry: Json, where: str, has_table: bool = False) -> Labelled:
    """Build a task and its reader from one mapping that holds the options of both.

    Args:
        entry: ``{task: NAME, labels: TEMPLATE, …}``.
        where: prefix of messages (file and task).
        has_table: whether templates may name columns of a table in place of ``{name}``.

    Raises:
        OptionError: an unknown task, an option that neither or both have, or an invalid value.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("task"), str):
        known = ", ".join(registry.classes("tasks"))
        raise OptionError(f"{where}: expected {{task: NAME, labels: TEMPLATE, …}} with a task of {known}")
    cls = registry.find("tasks", entry["task"])
    own = [f.name for f in dataclasses.fields(cls) if f.init]
    given = {key: value for key, value in entry.items() if key != "task"}
    takes = ("labels", "kind", "from", *options_of_reader(chosen_reader(given, cls, where)))
    every = label_options()
    for key in given:
        if key in own and key in takes:
            raise OptionError(
                f"{where}.{key}: {entry['task']} and the reader of its labels both have this option; rename one of them"
            )
        if key not in own and key not in every:
            near = suggest(str(key), [*own, *every]).split(" available:")[0]
            raise OptionError(
                f"{where}: unknown option {key!r}{near} options of {entry['task']}: {', '.join(own)}; "
                f"options of labels: {', '.join(every)}"
            )
    task_options = {key: value for key, value in given.items() if key in own}
    task: Task = registry.build("tasks", entry["task"], task_options, where=where)
    labels = reader_of({key: value for key, value in given.items() if key not in own}, task, where, has_table)
    return Labelled(task, labels)
