"""Choosing the reader of a task's labels from a data description, and building it with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePosixPath

from garnish.checking.plain_data import Json, hints_of
from garnish.data.labels.option_values import numbers_of, several
from garnish.data.labels.reader import Reader
from garnish.data.patterns import columns_of
from garnish.errors import OptionError, shown, suggest
from garnish.registry import classes, construct
from garnish.tasks.task import Task

#: Keys that choose the reader, beside its own options.
_CHOICE = ("kind", "from")


def readers() -> dict[str, type[Reader]]:
    """All readers by their ``kind``."""
    found: dict[str, type[Reader]] = {}
    known: Mapping[str, type[Reader]] = classes("readers")
    for name, cls in known.items():
        for lacks in ("kind", "target"):
            if not any(lacks in vars(base) for base in cls.__mro__):
                raise OptionError(f"reader {name} of {cls.__module__}: {lacks!r} is not given; name it in the class")
        if cls.kind in found:
            first = found[cls.kind].__name__
            raise OptionError(f"readers {first} and {name} both have the kind {cls.kind!r}; rename one")
        found[cls.kind] = cls
    return found


def options_of_reader(cls: type[Reader]) -> list[str]:
    """Names of the options that a reader takes beside ``labels``, ``orientation`` last."""
    common = [f.name for f in fields(Reader)]
    return [*(f.name for f in fields(cls) if f.init and f.name not in common), "orientation"]


def label_options() -> tuple[str, ...]:
    """Names of the options of all readers, as written in YAML."""
    every = [name for cls in readers().values() for name in options_of_reader(cls)]
    return tuple(dict.fromkeys(("labels", "kind", *every, "from")))


def chosen_reader(given: Mapping[str, Json], task: type[Task], where: str) -> type[Reader]:
    """The reader that ``kind`` names, else the one that an option selects, else the default for the kind of target.

    Raises:
        OptionError: a reader that does not make the task's kind of target, or several readers without a default.
    """
    known = readers()
    kind, source = given.get("kind") or "auto", given.get("from")
    sources = tuple(dict.fromkeys(cls.source for cls in known.values() if cls.source))
    if source is not None and source not in sources:
        raise OptionError(f"{where}.from: unknown source {source!r}; available: {', '.join(sources)}")
    if kind not in ("auto", *known):
        raise OptionError(f"{where}.kind: unknown kind {shown(kind)}{suggest(str(kind), ('auto', *known))}")
    if source and kind != "auto" and known[kind].source != source:
        raise OptionError(f"{where}: both 'kind' ({kind}) and 'from' ({source}) are given; keep one")
    fitting = {name: cls for name, cls in known.items() if cls.target is task.target}
    if not fitting:
        raise OptionError(f"{where}: no reader makes targets of {task.__name__}; write one: docs/add-a-reader.md")
    wanted = [name for name, cls in fitting.items() if cls.chosen_by and given.get(cls.chosen_by) is not None]
    usual = [name for name, cls in fitting.items() if cls.default]
    if kind != "auto":
        if kind in fitting:
            return fitting[kind]
        names = " or ".join(dict.fromkeys((*wanted, *usual, *fitting)))
        raise OptionError(f"{where}.kind: {kind!r} does not fit {task.__name__}; use {names}")
    endings = {PurePosixPath(t).suffix.lower() for t in several(given.get("labels")) if isinstance(t, str)}
    own = [name for name, cls in fitting.items() if cls.suffixes() & endings and cls.source == source]
    if source:
        named = [name for name, cls in fitting.items() if cls.source == source]
        if not named:
            names = " or ".join(dict.fromkeys((*wanted, *usual, *fitting)))
            raise OptionError(f"{where}.from: {source!r} does not fit {task.__name__}; use {names}")
        own = own or [name for name in named if not fitting[name].suffixes()] or named
    found = own or wanted or usual or list(fitting)
    if len(found) == 1:
        return fitting[found[0]]
    raise OptionError(
        f"{where}: several readers make targets of {task.__name__}; write `kind:` and one of {', '.join(found)}"
    )


def reader_of(given: Mapping[str, Json], task: Task, where: str, has_table: bool = False) -> Reader:
    """Build the reader of one task's labels.

    Args:
        given: its options by name.
        task: the task of the targets.
        where: prefix of messages (file and task).
        has_table: whether templates may name columns of a table in place of ``{name}``.

    Raises:
        OptionError: a missing template, a wrong type or value, or an option that does not apply to the reader.
    """
    labels = tuple(several(given.get("labels")))
    if not labels or not all(isinstance(template, str) for template in labels):
        raise OptionError(f"{where}: option 'labels' is required, a template such as \"masks/{{split}}/{{name}}.png\"")
    cls = chosen_reader(given, type(task), where)
    for template in labels:
        if "{name}" not in template and not (cls.shared or (has_table and columns_of(template))):
            raise OptionError(
                f"{where}.labels: {template!r} has no {{name}}, so every picture would have one label; write {{name}}"
                f" where the picture's name stands{', or a column of the table in braces' if has_table else ''}"
            )
    takes = options_of_reader(cls)
    for name in given:
        if name not in (*takes, "labels", *_CHOICE):
            kind = next(kind for kind, known in readers().items() if known is cls)
            raise OptionError(
                f"{where}.{name}: does not apply to labels of kind {kind}; those take: {', '.join(takes)}"
            )
    hints = hints_of(cls)
    values = {
        name: numbers_of(value, hints.get(name, object), f"{where}.{name}")
        for name, value in given.items()
        if value is not None and name not in _CHOICE
    }
    try:
        made: Reader = construct(cls, values, where=where)
        made.check_task(task)
    except OptionError as error:
        text = str(error)
        if text.startswith(where):
            raise
        # messages of the class start with the option's name if they are about one option
        raise OptionError(f"{where}{'.' if text.split(':')[0] in takes else ': '}{text}") from None
    return made
