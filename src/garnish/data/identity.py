"""Digests that identify a data set, so that a resumed run can detect that its data have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from garnish.checking.plain_data import Json
from garnish.data.dataset import Dataset
from garnish.errors import one_line, shown
from garnish.registry import options_of

_COUNT = "number of pictures"
_TASKS = "tasks and their classes"


def identity(dataset: Dataset) -> dict[str, Json]:
    """Aspect → its value or digest, JSON-ready.

    For a folder: the number of pictures; their names relative to the root and sizes in bytes, in order; the same for
    their label files; the reading options; the tasks with their options except weights. Pixels are not read, so a file
    replaced by another of the same name and size is not detected. For a data set class of your own: the number of
    pictures, the tasks, and what its ``Dataset.content`` returns.
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
    """The first aspect that differs, with both values if they are readable; empty if none differs."""
    for aspect in dict.fromkeys([*now, *before]):
        if before.get(aspect) != now.get(aspect):
            values = f": {shown(before.get(aspect))}, now {now.get(aspect)}" if aspect == _COUNT else ""
            return f"{one_line(aspect, 100)}{values}"
    return ""
