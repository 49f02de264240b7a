"""Conversion of a comparison's dataclasses to and from JSON data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from garnish.checking.plain_data import Reading, read_as

T = TypeVar("T")


def from_json(kind: type[T], data: object, where: str) -> T:
    """A dataclass from the output of :func:`as_json`.

    Raises:
        OptionError: an entry that is unknown, missing or of another type, naming it.
    """
    how = Reading(file=f"{where}: ", unknown="{place} is unknown", missing="{place} is missing")
    made: T = read_as(data, kind, kind.__name__, how)
    return made


def as_json(value: object) -> Any:
    """Convert recursively: fields become entries in order, tuples lists, numbers that are not finite null.

    A field whose default is None is left out if it is None.
    """
    if dataclasses.is_dataclass(value):
        held = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {f.name: as_json(inner) for f, inner in held if inner is not None or f.default is not None}
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
