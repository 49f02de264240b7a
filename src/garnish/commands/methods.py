"""``garnish methods``: list methods, heads, tasks, readers, layouts and backbones with their options."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import final

from garnish.checking.plain_data import Json, called, hints_of
from garnish.commands.parser import Parser
from garnish.output import say

#: Kinds of classes with options, in the order of the list.
KINDS = ("adapters", "heads", "tasks", "balancing", "readers", "annotations", "layouts")

#: Class → how a table of options calls its values, as recipes have them.
_CALLED = {
    "NoneType": "null",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "Path": "a path",
    "Any": "anything",
    "object": "anything",
    "Augment": "options of Augment",
}

_EPILOG = """\
examples:
  garnish methods
  garnish methods --json
"""


@final
@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a method, head, task, reader or layout.

    Attributes:
        name: as written in recipes and on the command line.
        default: as written there; "required" if there is none.
        values: which ones it takes.
        meaning: its description in the class's docstring.
    """

    name: str
    default: str
    values: str
    meaning: str


@final
@dataclasses.dataclass(frozen=True)
class Entry:
    """One class that can be named in recipes.

    Attributes:
        name: of the class.
        summary: the first sentence of its docstring.
        options: its options.
    """

    name: str
    summary: str
    options: tuple[Option, ...]


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish methods",
        "garnish methods [--json]",
        "List adapters, heads, tasks, ways of balancing, readers, layouts, backbones: names, options, what they are.",
        _EPILOG,
    )
    made.add_argument("--json", action="store_true", help="print JSON: lists of names")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.commands.printing import print_json, print_table

    if given.json:
        found: dict[str, Json] = {kind: [e.name for e in entries(kind)] for kind in KINDS}
        print_json(found | {"backbones": [name for _, _, held in families() for name in held]})
        return 0
    for kind in KINDS:
        rows = [[e.name, e.summary, ", ".join(f"{o.name}={o.default}" for o in e.options)] for e in entries(kind)]
        print_table([kind, "", "options"], rows)
        say("")
    rows = [[name, summary, f"{len(held)}: {', '.join(_some(held))}"] for name, summary, held in families()]
    print_table(["backbones", "", "names"], rows)
    return 0


def entries(kind: str) -> list[Entry]:
    """The entries of a kind, by the name used in recipes; for a reader of labels that is its ``kind``."""
    from garnish.registry import classes

    named = {getattr(cls, "kind", name): cls for name, cls in classes(kind).items()}
    return [dataclasses.replace(entry_of(cls), name=name) for name, cls in sorted(named.items())]


def families() -> list[tuple[str, str, list[str]]]:
    """(class, summary, names of its backbones) of each family of backbones."""
    from garnish.registry import classes

    found = sorted(classes("backbones").items())
    return [(name, _summary(cls), sorted(cls.names())) for name, cls in found]  # type: ignore[attr-defined]


def entry_of(cls: type) -> Entry:
    """Name, summary and options of a class whose fields are its options."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        meanings |= _attributes(base.__doc__ or "")
    fields = (
        [f for f in dataclasses.fields(cls) if f.init] if dataclasses.is_dataclass(cls) else []
    )  # a format has none
    # inherited options come last
    fields.sort(key=lambda f: f.name not in inspect.get_annotations(cls))
    hints = hints_of(cls)
    options = tuple(
        Option(f.name, _default(f), called(hints[f.name], _CALLED), meanings.get(f.name, "")) for f in fields
    )
    return Entry(cls.__name__, _summary(cls), options)


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if dataclasses.is_dataclass(value):
        return f"see {type(value).__name__}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _summary(cls: type) -> str:
    """The first paragraph of a docstring, as plain text."""
    return _text(inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


def _attributes(doc: str) -> dict[str, str]:
    """Name → text of the section ``Attributes:`` of a docstring."""
    match = re.search(r"^Attributes:\n((?:    .*\n?|\n)+)", inspect.cleandoc(doc), re.MULTILINE)
    found: dict[str, str] = {}
    last = ""
    for line in match[1].splitlines() if match else ():
        start = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if start is not None:
            last = start[1]
            found[last] = start[2]
        elif line.strip() and last:
            found[last] += " " + line.strip()
    # one text may stand for several names: "cardinality, base_width: …"
    return {name: _text(text) for names, text in found.items() for name in names.split(", ")}


def _text(doc: str) -> str:
    """A docstring without the markup of references and literals."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", doc).replace("``", "`")


def _some(held: Sequence[str], most: int = 6) -> list[str]:
    return list(held) if len(held) <= most else [*held[: most - 1], "…"]
