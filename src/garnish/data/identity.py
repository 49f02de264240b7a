"""What a data set is, in a few digests, so that a resumed run can tell whether it goes on with the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from garnish.checking.plain_data import Json
from garnish.data.dataset import Dataset
from garnish.registry import options_of

_COUNT = "number of pictures"
_TASKS = "tasks and their classes"


def identity(dataset: Dataset) -> dict[str, Json]:
    """Aspect → its value or digest, JSON-ready.

    Of a folder: how many pictures, their names from the set's root and sizes in bytes, in order; the same of their
    label files; how those are read; the tasks with their options but for weights. Pixels are not read: a file that was
    replaced by another of the same name and size is not noticed. Of a set of one's own: the number and the tasks, and
    what its ``Dataset.content`` says.
    """
    made: dict[str, hashlib._Hash] = {}
    for index in range(len(dataset)):
        for aspect, value in dataset.content(index).items():
            made.setdefault(aspect, hashlib.sha256()).update(f"{index} {value}\n".encode())
    tasks = {
        name: (type(task).__name__, sorted((k, str(v)) for k, v in options_of(task).items() if k != "weight"))
        for name, task in sorted(dataset.tasks.items())
    }
    found = {aspect: digest.hexdigest() for aspect, digest in made.items()}
    return {_COUNT: len(dataset), _TASKS: hashlib.sha256(str(tasks).encode()).hexdigest(), **found}


def changed_aspect(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    """The first aspect that differs, with both values where they can be read; empty where none does."""
    for aspect in dict.fromkeys([*now, *before]):
        if before.get(aspect) != now.get(aspect):
            return f"{aspect}: {before[_COUNT]}, now {now[_COUNT]}" if aspect == _COUNT else aspect
    return ""
