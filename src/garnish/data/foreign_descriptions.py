"""Finding the program whose description of data a mapping is, and reading it as one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from garnish.checking.plain_data import Json
from garnish.data.foreign.foreign_description import ForeignDescription
from garnish.registry import classes

#: Keys of which our own descriptions have one at least.
_OWN = ("images", "tasks", "layout", "table")


def translated(given: Mapping[str, Json], source: str, base: Path) -> Mapping[str, Json]:
    """The keys of a data description: as they are, or of another program's file, with an absolute ``path``.

    Args:
        given: the content of a YAML file, or a mapping of the caller.
        source: its name, for messages.
        base: the folder that its paths are relative to.

    Raises:
        DataError, OptionError: as :meth:`ForeignDescription.described`.
    """
    if any(key in given for key in _OWN):
        return given
    known: Mapping[str, type[ForeignDescription]] = classes("foreign")
    found = next((foreign for foreign in known.values() if foreign.recognised(given)), None)
    return given if found is None else found.described(given, source, base)
