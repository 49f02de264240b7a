"""Converting numbers in a data description that may be text: ``nan``, or the keys of a mapping in JSON."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeGuard, Union, get_args, get_origin

from garnish.checking.plain_data import Json
from garnish.errors import OptionError


def numbers_of(value: object, hint: object, at: str) -> object:
    """Convert a value to numbers where a type annotation asks for them; anything else is left unchanged.

    Args:
        value: as read from YAML.
        hint: the annotation of an option.
        at: prefix of messages.

    Raises:
        OptionError: a value that is not a number where one is needed.
    """
    hint = _bare(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if hint is int:
        return whole_number(value, at)
    if hint is float:
        return number(value, at)
    if origin in (Union, types.UnionType):
        options = [option for option in inner if option is not type(None)]
        if len(options) == 1:
            return numbers_of(value, options[0], at)
        return int(value) if int in map(_bare, options) and _is_whole(value) else value
    if origin is tuple and {int, float} & set(map(_bare, inner)):
        return [numbers_of(entry, inner[0], at) for entry in several(value)]
    if inspect.isclass(origin) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {numbers_of(key, inner[0], at): numbers_of(entry, inner[1], at) for key, entry in value.items()}
    return value


def _bare(hint: object) -> object:
    """A type without its bounds, which are for whoever makes the reader."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def several(value: Json) -> Sequence[Json]:
    """A list unchanged, anything else as a list of one entry."""
    return value if isinstance(value, list | tuple) else [value]


def whole_number(value: object, at: str) -> int:
    """A whole number, or text of one, as int; raises OptionError for anything else."""
    if not _is_whole(value):
        raise OptionError(f"{at}: expected a whole number, got {value!r}")
    return int(value)


def number(value: object, at: str) -> float:
    """A number, or text of one, as float; raises OptionError for anything else."""
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            return float(value)
        except ValueError:
            pass
    raise OptionError(f"{at}: expected a number, got {value!r}")


def _is_whole(value: object) -> TypeGuard[int | str]:
    return (
        not isinstance(value, bool)
        and isinstance(value, int | str)
        and bool(re.fullmatch(r"-?\d+", str(value).strip()))
    )
