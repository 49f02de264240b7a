"""Checks the arguments of public functions and option classes against their type annotations, with one-line errors.

Types, the choices of a ``Literal``, and the bounds of :mod:`garnish.checking.bounds`. What depends on several options,
or on a trunk, is for whoever reads them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import operator
import os
import re
from abc import ABC, ABCMeta
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from garnish.checking.mistaken import remedy_for
from garnish.checking.plain_data import LONGEST, Reading, Unfit, conform, fits, hints_of, line_of
from garnish.errors import OptionError, one_line, shown, suggest

F = TypeVar("F", bound=Callable[..., object])
_T = TypeVar("_T")

#: Class → its description in messages, and how to get one.
_CALLED = {
    "Model": "a model (of gn.adapt, gn.load or gn.finished)",
    "Backbone": "a backbone (of gn.backbone)",
    "Dataset": "data (of gn.folder, gn.dataset(yours, tasks), gn.Scenes or gn.join)",
    "Method": "a method such as gn.LoRA(rank=8)",
    "Head": "a head such as gn.LinearHead()",
    "LogsMetrics": "a logger object",
    "Callback": "a callback (an object of a class derived from gn.Callback)",
    "Batch": "a batch (of gn.collate)",
    "Task": "a task such as gn.Depth()",
    "Tensor": "a tensor",
    "Augment": "changes of pictures such as gn.Augment(size=(256, 256))",
    "Path": "a path",
    "PathLike": "a path",
    "NoneType": "None",
    "str": "text",
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
}


def _shown(value: object) -> str:
    """A value in a message: its type, and the value itself if that is short."""
    name = type(value).__name__
    if isinstance(value, _ByName):
        return f"the class {value.__name__} itself; call it: {value.__name__}()"
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        if isinstance(entry, _ByName):
            return f"{name} with {_shown(entry)}"
    if isinstance(value, str | bytes | int | float | complex | os.PathLike | type):
        return f"{name} {shown(value if not isinstance(value, Path) else str(value), 40)}"
    if value is None:
        return name
    if isinstance(value, list | tuple) and 0 < len(value) <= 8 and {type(entry) for entry in value} <= {int, float}:
        return f"{name} {shown(value, 60)}"
    if isinstance(value, list | tuple | set | dict):
        held = sorted({type(entry).__name__ for entry in (value.values() if isinstance(value, dict) else value)})
        return f"{name} of {', '.join(held)}" if held else f"an empty {name}"
    return name


#: Argument of functions of other libraries → the one that we have in its place, and what to give.
_ELSEWHERE = {"pretrained": ("weights", "weights=True for the published ones, weights=None for random ones")}

#: Arguments of functions, which may be long lists of pictures, and options, which may not be.
_ARGUMENT = Reading(builds=False, names=_CALLED, shows=_shown)
_OPTION = dataclasses.replace(_ARGUMENT, longest=LONGEST)


def checked(function: F) -> F:
    """Decorate a function to raise :class:`OptionError` for a missing or unknown argument.

    Likewise for an argument whose type is not the annotated one.
    """
    signature = inspect.signature(function)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    label = function.__qualname__.removesuffix(".__init__").split(".")[-1]

    @functools.wraps(function)
    def call(*args: object, **given: object) -> object:
        hints = hints_of(function)
        try:
            bound = signature.bind(*args, **given)
        except TypeError as error:
            elsewhere = getattr(function, "elsewhere", {})
            raise OptionError(f"{label}: {_unbound(signature, given, error, elsewhere)}") from None
        for name, value in bound.arguments.items():
            if name in hints and kinds[name] is not inspect.Parameter.VAR_KEYWORD:
                take = functools.partial(_taken, hint=hints[name], where=f"{label}: {name}", how=_ARGUMENT)
                several = kinds[name] is inspect.Parameter.VAR_POSITIONAL
                told = f"one call a {name}"
                new = tuple(take(v, of_several=told) for v in value) if several else take(value, of_several=told)
                bound.arguments[name] = new
        return function(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def taking(options: type) -> Callable[[F], F]:
    """Decorate a function whose last parameter is ``**options``: it takes the fields of a dataclass, and nothing else.

    Its signature and its docstring, in place of the line ``options: …``, say so as if they stood there; ``help`` and
    completion read those, and :func:`checked` binds by them. Parameters that the function has itself are its own.
    """

    def decorate(function: F) -> F:
        signature, hints = inspect.signature(function), hints_of(options)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {field.name: field for field in dataclasses.fields(options) if field.name not in signature.parameters}
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[name])
            for name, field in taken.items()
        ]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        function.__annotations__ |= {name: hints[name] for name in taken}
        told = (inspect.getdoc(options) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        entries = [entry for entry in re.split(r"\n(?=    \w)", told) if entry.split(":")[0].strip() in taken]
        function.__doc__ = re.sub(r"    options: .*", lambda _: "\n".join(entries), inspect.getdoc(function) or "")
        return function

    return decorate


def named_elsewhere(**names: str) -> Callable[[F], F]:
    """Decorate a function, below :func:`checked`, to say what to give for arguments that others call so."""

    def decorate(function: F) -> F:
        function.elsewhere = names  # type: ignore[attr-defined]
        return function

    return decorate


def _unbound(
    signature: inspect.Signature, given: Mapping[str, object], error: TypeError, elsewhere: Mapping[str, str]
) -> str:
    """Message for arguments that do not fit a function's signature."""
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [name for name, p in signature.parameters.items() if name != "self" and p.kind in plain]
    unknown = [name for name in given if name not in known]
    for name in unknown:
        ours, remedy = _ELSEWHERE.get(name, ("", ""))
        if ours in known:
            return f"unknown argument {shown(name)}; {remedy}"
    takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    if not unknown or takes_more:
        return f"{one_line(error, 100)}; it takes {', '.join(known)}"
    if unknown[0] in elsewhere:
        return f"unknown argument {shown(unknown[0])}; {elsewhere[unknown[0]]}"
    text = f"unknown argument {shown(unknown[0])}{suggest(unknown[0], known, limit=40)}"
    return text + (f" (what it builds has options: options={{{unknown[0]!r}: …}})" if "options" in known else "")


class _ByName(ABCMeta):
    """Metaclass that checks the arguments when an option class is called; copying and unpickling do not call it.

    A third-party class with a hand-written ``__init__`` is called without checks.
    """

    # typed by the class that is called, so that type checkers go on to that class's own constructor
    def __call__(cls: type[_T], *args: object, **given: object) -> _T:
        args, given = _placed(cls, args, given)
        made: _T = type.__call__(cls, *args, **given)
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """The options with their defaults, for ``help`` and completion, which would else show those of ``__call__``."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def _placed(
    cls: type, args: tuple[object, ...], given: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments of an option class, checked and converted, all of them by name."""
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    made = vars(owner).get("__dataclass_params__")
    if made is None or not made.init:
        return args, given
    options = dict(list(inspect.signature(vars(owner)["__init__"]).parameters.items())[1:])  # InitVars are among them
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
    values: dict[str, object] = {}
    for name, value in {**placed, **given}.items():
        if name not in known:
            remedy = f"; {cls.elsewhere[name]}" if name in cls.elsewhere else suggest(name, known, limit=40)  # type: ignore[attr-defined]
            raise OptionError(f"{label}: unknown option {shown(name)}{remedy}")
        hint = hints.get(name, object)
        hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
        values[name] = _taken(value, hint, f"{label}.{name}", _OPTION)
    for name, option in options.items():
        if name not in values and option.default is inspect.Parameter.empty:
            raise OptionError(f"{label}: option {name!r} is required: {label}({name}=…)")
    return (), values


class Options(ABC, metaclass=_ByName):
    """Base of frozen dataclasses of options, whose names and annotated types are checked when one is made.

    Ours take keywords only. NumPy numbers become Python's, and lists become tuples where those are annotated, so that
    equal options are equal, can be hashed and can be written as YAML and JSON.

    Attributes:
        elsewhere: what others call an option → what to give here.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}


def _taken(value: object, hint: object, where: str, how: Reading, of_several: str = "") -> object:
    """The value, converted as :class:`Options` says; raises OptionError if it is not of the annotated type."""
    with contextlib.suppress(RecursionError):  # lists in lists without end, which no option is
        value = _of_python(value)
    try:
        return conform(value, hint, where, how)
    except Unfit as unfit:
        line = unfit.line() if unfit.outside else line_of(value, hint, where, how)
    is_list = of_several and isinstance(value, list | tuple) and value and all(fits(one, hint) for one in value)
    is_entry = isinstance(value, str) and len(value) <= LONGEST and not is_list and fits((value,), hint)
    told = f"; {of_several}" if is_list else f"; give ({shown(value)},)" if is_entry else remedy_for(value, hint)
    raise OptionError(f"{line}{told}")


def _of_python(value: Any, known: dict[int, object] | None = None) -> object:
    """Convert NumPy scalars and strings to Python's, also in lists, tuples and dicts; other values are unchanged.

    Lists that stand in several places are looked at once (``known``, by identity), since a few may stand for millions.
    """
    known = {} if known is None else known
    if isinstance(value, np.number | np.bool_ | np.str_):
        return value.item()
    if type(value) not in (list, tuple, dict):
        return value
    if id(value) in known:
        return known[id(value)]
    made: Any = value
    if type(value) is dict:
        changed = {_of_python(key, known): _of_python(entry, known) for key, entry in value.items()}
        made = value if all(changed[key] is entry for key, entry in value.items()) else changed
    else:
        new = [_of_python(entry, known) for entry in value]
        made = value if all(map(operator.is_, new, value)) else type(value)(new)
    known[id(value)] = made
    return made
