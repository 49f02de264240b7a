"""What is given to a public function, or to a class of options, is of the type that its annotation says; else one line.

Types only: whether a value is in range is for whoever reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import os
import types
from abc import ABC, ABCMeta
from collections.abc import Callable, Mapping, Sequence, Set, ValuesView
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from garnish.errors import OptionError, one_line, suggest

F = TypeVar("F", bound=Callable[..., Any])

#: Class → how a message calls it, and where one is had from.
_CALLED = {
    "Model": "a model (of gn.adapt, gn.load or gn.finished)",
    "Backbone": "a backbone (of gn.backbone)",
    "Dataset": "data (of gn.folder, gn.Scenes or gn.join, or a subclass of garnish.data.sample.Dataset)",
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
    """The same function, which raises :class:`OptionError` for an argument that it lacks or does not have.

    Likewise for one of another type than is annotated.
    """
    signature = inspect.signature(function)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    label = function.__qualname__.removesuffix(".__init__").split(".")[-1]

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        hints = _hints(function)
        try:
            bound = signature.bind(*args, **given)
        except TypeError as error:
            raise OptionError(f"{label}: {_unbound(signature, given, error)}") from None
        for name, value in bound.arguments.items():
            if name in hints and kinds[name] is not inspect.Parameter.VAR_KEYWORD:
                several = kinds[name] is inspect.Parameter.VAR_POSITIONAL
                for one in value if several else (value,):
                    _check(one, hints[name], f"{label}: {name}", f"one call a {name}")
        return function(*args, **given)

    return call  # type: ignore[return-value]


def _unbound(signature: inspect.Signature, given: Mapping[str, Any], error: TypeError) -> str:
    """Why arguments do not fit a function that takes others."""
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [name for name, p in signature.parameters.items() if name != "self" and p.kind in plain]
    unknown = [name for name in given if name not in known]
    takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    if not unknown or takes_more:
        return f"{one_line(error, 100)}; it takes {', '.join(known)}"
    text = f"unknown argument {unknown[0]!r}{suggest(unknown[0], known, limit=40)}"
    return text + (f" (what it builds has options: options={{{unknown[0]!r}: …}})" if "options" in known else "")


class _ByName(ABCMeta):
    """What a call of a class of options checks; copies and pickles of one are made without a call."""

    def __call__(cls, *args: Any, **given: Any) -> Any:
        fields = [f for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
        known = [f.name for f in fields]
        label = cls.__name__
        if args:
            example = f"{label}({known[0]}=…)" if known else f"{label}()"
            raise OptionError(f"{label}: options are given by name: {example}")
        hints = _hints(cls)
        for name, value in given.items():
            if name not in known:
                raise OptionError(f"{label}: unknown option {name!r}{suggest(name, known, limit=40)}")
            _check(value, hints.get(name, Any), f"{label}.{name}")
        for f in fields:
            if f.name not in given and f.default is f.default_factory is dataclasses.MISSING:
                raise OptionError(f"{label}: option {f.name!r} is required: {label}({f.name}=…)")
        return super().__call__(**given)


class Options(ABC, metaclass=_ByName):
    """Base of frozen dataclasses of options: they are given by name, known, and of the type that is annotated."""


@functools.cache
def _hints(of: Any) -> dict[str, Any]:
    try:
        return get_type_hints(of)
    except NameError:  # a class of a third party whose annotations cannot be found from outside
        return {}


def _check(value: Any, hint: Any, where: str, of_several: str = "") -> None:
    if fits(value, hint):
        return
    is_list = of_several and isinstance(value, list | tuple) and value and all(fits(one, hint) for one in value)
    raise OptionError(f"{where}: expected {_called(hint)}, got {_shown(value)}{f'; {of_several}' if is_list else ''}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; lists pass for tuples, and numbers of numpy for Python's."""
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
    """Its type, and itself where that is short."""
    name = type(value).__name__
    if isinstance(value, str | bytes | int | float | complex | os.PathLike | type):
        return f"{name} {one_line(repr(value if not isinstance(value, Path) else str(value)), 40)}"
    if value is None:
        return name
    if isinstance(value, list | tuple | set | dict):
        held = sorted({type(entry).__name__ for entry in (value.values() if isinstance(value, dict) else value)})
        return f"{name} of {', '.join(held)}" if held else f"an empty {name}"
    return name
