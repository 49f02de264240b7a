"""Checks the arguments of public functions and option classes against their type annotations, with one-line errors.

Types only: functions and classes check the ranges of values themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import operator
import os
import types
from abc import ABC, ABCMeta
from collections.abc import Callable, Mapping, Sequence, Set, ValuesView
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from garnish.errors import OptionError, one_line, suggest

F = TypeVar("F", bound=Callable[..., Any])

#: Class → its description in messages, and how to get one.
_CALLED = {
    "Model": "a model (of gn.adapt, gn.load or gn.finished)",
    "Backbone": "a backbone (of gn.backbone)",
    "Dataset": "data (of gn.folder, gn.Scenes or gn.join, or a subclass of garnish.data.dataset.Dataset)",
    "Method": "a method such as gn.LoRA(rank=8)",
    "Head": "a head such as gn.LinearHead()",
    "Task": "a task such as gn.Depth()",
    "Tensor": "a tensor",
    "Path": "a path",
    "PathLike": "a path",
    "NoneType": "None",
    "str": "text",
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
}


def checked(function: F) -> F:
    """Decorate a function to raise :class:`OptionError` for a missing or unknown argument.

    Likewise for an argument whose type is not the annotated one.
    """
    signature = inspect.signature(function)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    label = function.__qualname__.removesuffix(".__init__").split(".")[-1]

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        hints = hints_of(function)
        try:
            bound = signature.bind(*args, **given)
        except TypeError as error:
            raise OptionError(f"{label}: {_unbound(signature, given, error)}") from None
        for name, value in bound.arguments.items():
            if name in hints and kinds[name] is not inspect.Parameter.VAR_KEYWORD:
                take = functools.partial(_taken, hint=hints[name], where=f"{label}: {name}")
                several = kinds[name] is inspect.Parameter.VAR_POSITIONAL
                told = f"one call a {name}"
                new = tuple(take(v, of_several=told) for v in value) if several else take(value, of_several=told)
                bound.arguments[name] = new
        return function(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def _unbound(signature: inspect.Signature, given: Mapping[str, Any], error: TypeError) -> str:
    """Message for arguments that do not fit a function's signature."""
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [name for name, p in signature.parameters.items() if name != "self" and p.kind in plain]
    unknown = [name for name in given if name not in known]
    takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    if not unknown or takes_more:
        return f"{one_line(error, 100)}; it takes {', '.join(known)}"
    text = f"unknown argument {unknown[0]!r}{suggest(unknown[0], known, limit=40)}"
    return text + (f" (what it builds has options: options={{{unknown[0]!r}: …}})" if "options" in known else "")


class _ByName(ABCMeta):
    """Metaclass that checks the arguments when an option class is called; copying and unpickling do not call it.

    A third-party class with a hand-written ``__init__`` is called without checks.
    """

    def __call__(cls, *args: Any, **given: Any) -> Any:
        owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
        made = vars(owner).get("__dataclass_params__")
        if made is None or not made.init:
            return super().__call__(*args, **given)
        options = dict(
            list(inspect.signature(vars(owner)["__init__"]).parameters.items())[1:]
        )  # InitVars are among them
        known = list(options)
        by_place = [name for name, p in options.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        label = cls.__name__
        if len(args) > len(by_place):
            example = f"{label}({known[0]}=…)" if known else f"{label}()"
            raise OptionError(f"{label}: options are given by name: {example}")
        placed = dict(zip(by_place, args, strict=False))
        if twice := placed.keys() & given.keys():
            raise OptionError(f"{label}: option {min(twice)!r} is given twice; give it once")
        hints = hints_of(cls)
        values: dict[str, Any] = {}
        for name, value in {**placed, **given}.items():
            if name not in known:
                raise OptionError(f"{label}: unknown option {name!r}{suggest(name, known, limit=40)}")
            hint = hints.get(name, Any)
            hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
            values[name] = _taken(value, hint, f"{label}.{name}")
        for name, option in options.items():
            if name not in values and option.default is inspect.Parameter.empty:
                raise OptionError(f"{label}: option {name!r} is required: {label}({name}=…)")
        return super().__call__(**values)


class Options(ABC, metaclass=_ByName):
    """Base of frozen dataclasses of options, whose names and annotated types are checked when one is made.

    Ours take keywords only. NumPy numbers become Python's, and lists become tuples where those are annotated, so that
    equal options are equal, can be hashed and can be written as YAML and JSON.
    """


@functools.cache
def hints_of(of: Any) -> dict[str, Any]:
    """Name → annotated type; empty if an annotation (of a third party) cannot be evaluated."""
    try:
        return get_type_hints(of)
    except Exception:  # unknown names, text that is not Python, and anything else that evaluating it raises
        return {}


def _taken(value: Any, hint: Any, where: str, of_several: str = "") -> Any:
    """The value, converted as :class:`Options` says; raises OptionError if it is not of the annotated type."""
    value = _of_python(value)
    if fits(value, hint):
        return _with_tuples(value, hint)
    is_list = of_several and isinstance(value, list | tuple) and value and all(fits(one, hint) for one in value)
    raise OptionError(f"{where}: expected {_called(hint)}, got {_shown(value)}{f'; {of_several}' if is_list else ''}")


def _of_python(value: Any) -> Any:
    """Convert NumPy scalars and strings to Python's, also in lists, tuples and dicts; other values are unchanged."""
    if isinstance(value, np.number | np.bool_ | np.str_):
        return value.item()
    if type(value) in (list, tuple):
        new = [_of_python(entry) for entry in value]
        return value if all(map(operator.is_, new, value)) else type(value)(new)
    if type(value) is dict:
        changed = {_of_python(key): _of_python(entry) for key, entry in value.items()}
        return value if all(changed[key] is entry for key, entry in value.items()) else changed
    return value


def _with_tuples(value: Any, hint: Any) -> Any:
    """Convert lists to tuples where the annotation, which the value fits, says tuple."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _with_tuples(value, next(option for option in inner if fits(value, option)))
    if origin is tuple:
        each = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
        new = tuple(map(_with_tuples, value, each))
        return value if type(value) is not list and all(map(operator.is_, new, value)) else new
    if inspect.isclass(origin) and issubclass(origin, Mapping) and type(value) is dict:
        entries = {key: _with_tuples(entry, inner[1]) for key, entry in value.items()}
        return value if all(entries[key] is entry for key, entry in value.items()) else entries
    return value


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; lists count as tuples, and integers as floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return any(type(value) is type(option) for option in inner)
    if hint in (None, type(None)):
        return value is None
    if hint is bool or hint is str:
        return isinstance(value, hint)
    if hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        each = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        return len(each) == len(value) and all(map(fits, value, each))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        plain = isinstance(value, Sequence | Set | ValuesView) and not isinstance(value, str | bytes)
        return plain and all(fits(entry, inner[0]) for entry in value)
    kind = hint if origin is None else origin
    return not inspect.isclass(kind) or kind is object or isinstance(value, kind)


def _called(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_called(option) for option in inner))
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is tuple and Ellipsis not in inner:
        return f"{len(inner)} values ({', '.join(map(_called, inner))})"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"a mapping from {_called(inner[0])} to {_called(inner[1])}"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return f"a list of {_called(inner[0])}"
    name = getattr(hint if origin is None else origin, "__name__", str(hint))
    return _CALLED.get(name, name)


def _shown(value: Any) -> str:
    """A value in a message: its type, and the value itself if that is short."""
    name = type(value).__name__
    if isinstance(value, str | bytes | int | float | complex | os.PathLike | type):
        return f"{name} {one_line(repr(value if not isinstance(value, Path) else str(value)), 40)}"
    if value is None:
        return name
    if isinstance(value, list | tuple | set | dict):
        held = sorted({type(entry).__name__ for entry in (value.values() if isinstance(value, dict) else value)})
        return f"{name} of {', '.join(held)}" if held else f"an empty {name}"
    return name
