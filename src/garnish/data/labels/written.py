"""The options of a reader as text, which resumed runs and cached features compare."""

from __future__ import annotations

from dataclasses import fields

from garnish.data.labels.reader import Reader
from garnish.tasks.task import Task

#: Every option of release 0.1 with its default; texts written by that release are still compared.
_BEFORE = {
    "labels": (),
    "kind": "",
    "ignore": (),
    "map": None,
    "others": None,
    "offset": 0,
    "scale": None,
    "invalid": (),
    "threshold": None,
    "positive": None,
    "flip": (),
    "colours": None,
    "packed": None,
    "orientation": None,
}


def written(reader: Reader, task: Task) -> str:
    """A reader and its options in canonical form for a task, as text."""
    cls, options = type(reader), dict(reader.resolved(task))
    if cls.__module__.startswith(__package__):
        values = {**_BEFORE, **options, "kind": cls.kind}
        usual = {f.name: f.default for f in fields(reader)}
        newer = [name for name in options if name not in _BEFORE and options[name] != usual.get(name)]
        return f"LabelOptions({', '.join(f'{name}={values[name]!r}' for name in (*_BEFORE, *newer))})"
    return f"{cls.__module__}.{cls.__qualname__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"
