"""How labels are read, as the text by which a resumed run and kept features tell whether it is the same."""

from __future__ import annotations

from garnish.data.labels.reader import Reader
from garnish.tasks.task import Task

#: Every option of release 0.1 with what stood there where it was not given; what that wrote is compared still.
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
    """The reader and its options as they act on a task."""
    cls, options = type(reader), dict(reader.resolved(task))
    if cls.__module__.startswith(__package__):
        values = {**_BEFORE, **options, "kind": cls.kind}
        return f"LabelOptions({', '.join(f'{name}={values[name]!r}' for name in _BEFORE)})"
    return f"{cls.__module__}.{cls.__qualname__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"
