"""A value is of the type that an annotation says; else one line says where not, what was expected and what was found.

One reader for arguments, for options in recipes, and for what JSON and YAML files of strangers hold. What it knows of
types: classes, unions, ``Literal``, tuples, sequences, mappings, dataclasses, ``TypedDict``, and ``Annotated`` with
:class:`Within`. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
import numbers
import operator
import types
from collections.abc import Callable, Mapping, Sequence, Set, Sized, ValuesView
from dataclasses import dataclass, field
from fractions import Fraction
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    final,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from garnish.checking.within import MEASURED as MEASURED  # what annotations are written with stands here too
from garnish.checking.within import Within as Within
from garnish.checking.within import integers as integers
from garnish.checking.within import lengths as lengths
from garnish.checking.within import matching as matching
from garnish.checking.within import reals as reals
from garnish.errors import GarnishError, OptionError, one_line, shown, suggest

T = TypeVar("T")

#: Whole numbers that torch, NumPy and files hold in 64 bits; none of ours is meant to be larger.
_LEAST, _MOST = -(2**63), 2**63 - 1

#: What has entries.
_MANY = (list, tuple, Mapping, Set)

#: What JSON and YAML hold, of any depth; whoever takes an entry out says of which type it is.
Json = Any


@final
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a place is read, and how it tells what is wrong.

    Attributes:
        error: what is raised.
        file: what every line begins with, such as ``FILE: ``.
        unknown, missing: lines about a key, with ``{at}``, ``{key}``, ``{place}`` (both, dotted) and ``{known}``.
        names: class name → how a line calls it; others by their own names.
        builds: mappings become the dataclasses that are annotated, and whole numbers floats; else both stay.
        wraps: one text or number stands for a tuple of one.
        longest: entries of a list or mapping and letters of a text, at most; None: any number.
        shows: how a line shows what was found.
    """

    error: type[GarnishError] = OptionError
    file: str = ""
    unknown: str = "{at}: unknown option {key!r}"
    missing: str = "{at}: option {key!r} is required; options: {known}"
    names: Mapping[str, str] = field(default_factory=lambda: {"NoneType": "null"})
    builds: bool = True
    wraps: bool = False
    longest: int | None = None
    shows: Callable[[object], str] = shown


#: As Python has them: options and arguments.
GIVEN = Reading(builds=False)

#: Entries of a list or mapping and letters of a text that any option may have: as many as 16 bits count.
LONGEST = 65_536


@final
class Unfit(Exception):
    """A value that does not fit; its line is put together where it is wanted, for unions try one type after another.

    Attributes:
        line: what is wrong.
        outside: whether it, or an entry of it, is of the right type but not among the values that are meant.
    """

    def __init__(self, line: Callable[[], str], *, outside: bool = False) -> None:
        self.line, self.outside = line, outside


def read_as(value: object, hint: type[T], at: str, how: Reading) -> T:
    """As :func:`conform`; raises the error of ``how``, one line."""
    try:
        made: T = conform(value, hint, at, how)
    except Unfit as unfit:
        raise how.error(how.file + unfit.line()) from None
    return made


def fits(value: object, hint: Any) -> bool:
    """Whether a value of Python is of an annotated type; lists pass for tuples, and whole numbers for others."""
    try:
        conform(value, hint, "", GIVEN)
    except Unfit:
        return False
    return True


@functools.cache
def hints_of(of: object) -> dict[str, Any]:
    """Name → annotated type; empty where an annotation of a third party cannot be evaluated."""
    try:
        return get_type_hints(of, include_extras=True)
    except Exception:  # names that are not found from outside, text that is no Python, whatever else such text raises
        return {}


def called(hint: object, names: Mapping[str, str]) -> str:
    """How a message calls a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        within = _within(hint)
        if within is None:
            return called(inner[0], names)
        return within.called if within.of == "values" else f"{called(inner[0], names)}, {within.called}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(called(option, names) for option in inner))
    if origin is Literal:
        return "one of " * (len(inner) > 1) + ", ".join(str(value) or "''" for value in inner)
    if origin is tuple and Ellipsis not in inner:
        return f"{len(inner)} values ({', '.join(called(one, names) for one in inner)})"
    if is_typeddict(hint):
        return "a mapping"
    if _is_a(origin, Mapping):
        return f"a mapping from {called(inner[0], names)} to {called(inner[1], names)}"
    if _is_a(origin, Sequence):
        return f"a list of {'mappings' if is_typeddict(inner[0]) else called(inner[0], names)}"
    name = getattr(hint if origin is None else origin, "__name__", str(hint))
    return names.get(name, name)


def conform(value: object, hint: object, at: str, how: Reading) -> Any:
    """``value`` as the type ``hint`` has it: tuples for lists, and where ``how`` builds, dataclasses for mappings.

    Args:
        value: of any depth; itself where nothing changes.
        hint: a type, as annotations have it.
        at: its place, dotted, for messages.
        how: see :class:`Reading`.

    Raises:
        Unfit: where it is not of the type.
    """
    if type(value) is hint and (hint is bool or (hint is int and _LEAST <= value <= _MOST)):  # type: ignore[operator]
        return value  # at once, for lists may be long
    if how.longest is not None and isinstance(value, (str, bytes, *_MANY)) and len(value) > how.longest:
        raise Unfit(functools.partial(_too_long, value, at, how.longest), outside=True)
    origin, inner = get_origin(hint), get_args(hint)
    outside = False
    if hint is Any:
        return value
    if origin is Annotated:
        if (within := _within(hint)) is None:
            return conform(value, inner[0], at, how)
        if within.of == "lengths" and isinstance(value, _MANY):
            if within.holds(value):  # before each of them is read
                return conform(value, inner[0], at, how)
            outside = True
        else:
            odd = not within.finite and isinstance(value, float) and not math.isfinite(value)
            with contextlib.suppress(Unfit):
                new = value if odd else conform(value, inner[0], at, how)
                if within.holds(new):
                    return new
                outside = True
    elif origin in (Union, types.UnionType):
        for option in inner:
            if how.builds and isinstance(value, Mapping) and (_has_keys(option) or _is_a(option, Mapping)):
                return conform(value, option, at, how)  # its own line, not that of the union
            try:
                return conform(value, option, at, how)
            except Unfit as unfit:
                if unfit.outside and isinstance(value, _MANY):
                    raise  # likewise
                outside = outside or unfit.outside
    elif origin is Literal:
        if any(type(value) is type(option) and value == option for option in inner):
            return value
    elif hint in (int, float):
        kind_of_number = numbers.Integral if hint is int else numbers.Real
        # neither JSON nor YAML can keep a fraction
        if not isinstance(value, bool | Fraction) and isinstance(value, kind_of_number):
            with contextlib.suppress(OverflowError):  # a whole number beyond every float
                as_hinted = operator.index(value) if hint is int else float(value)  # type: ignore[arg-type]
                if _LEAST <= as_hinted <= _MOST if hint is int else math.isfinite(as_hinted):
                    return as_hinted if how.builds else value
    elif origin is tuple:
        items = [value] if how.wraps and isinstance(value, str | int | float) else value
        if isinstance(items, tuple | list):
            each = [inner[0]] * len(items) if len(inner) == 2 and inner[1] is Ellipsis else inner
            if len(each) == len(items):
                made = tuple(conform(one, kind, at, how) for one, kind in zip(items, each, strict=True))
                return items if type(items) is tuple and all(map(operator.is_, made, items)) else made
    elif _is_a(origin, Mapping):
        if isinstance(value, Mapping):
            entries = {
                conform(k, inner[0], at, how): conform(v, inner[1], _dotted(at, k), how) for k, v in value.items()
            }
            return value if all(entries.get(k, value) is v for k, v in value.items()) else entries
    elif _is_a(origin, Sequence):
        if isinstance(value, Sequence | Set | ValuesView) and not isinstance(value, str | bytes):
            listed = [conform(one, inner[0], f"{at}[{number}]", how) for number, one in enumerate(value)]
            return value if all(map(operator.is_, listed, value)) else listed
    elif isinstance(value, Mapping) and _has_keys(hint) and (how.builds or is_typeddict(hint)):
        return _with_keys(value, hint, at, how)
    else:
        kind = type(None) if hint is None else hint if origin is None else origin
        if not inspect.isclass(kind) or (not is_typeddict(kind) and (kind is object or isinstance(value, kind))):
            return value
    raise Unfit(lambda: line_of(value, hint, at, how), outside=outside)


def _with_keys(value: Mapping[Any, object], hint: Any, at: str, how: Reading) -> object:
    """What a mapping's keys say, as a dataclass or as the dictionary that a ``TypedDict`` describes."""
    kinds, needed = _keys_of(hint)
    if odd := [key for key in value if key not in kinds]:
        told = {"at": at, "known": ", ".join(kinds), "place": _dotted(at, odd[0])}
        line = how.unknown.format(key=one_line(odd[0], 60), **told)
        raise Unfit(lambda: line + suggest(str(odd[0]), kinds, limit=40))
    if missing := next((key for key in needed if key not in value), None):
        place, listed = _dotted(at, missing), ", ".join(kinds)
        raise Unfit(lambda: how.missing.format(key=missing, place=place, at=at, known=listed))
    new = {key: conform(entry, kinds[key], _dotted(at, key), how) for key, entry in value.items()}
    return new if is_typeddict(hint) else hint(**new)


@functools.cache
def _keys_of(hint: Any) -> tuple[dict[str, Any], list[str]]:
    """Key → type of a dataclass's or a ``TypedDict``'s entries, and the keys that must be there."""
    hints = hints_of(hint)
    if is_typeddict(hint):
        needed = [name for name, kind in hints.items() if get_origin(kind) is not NotRequired]
        return {k: kind.__args__[0] if get_origin(kind) is NotRequired else kind for k, kind in hints.items()}, needed
    given = [one for one in dataclasses.fields(hint) if one.init]
    left = dataclasses.MISSING
    needed = [one.name for one in given if one.default is left and one.default_factory is left]
    return {one.name: hints.get(one.name, object) for one in given}, needed


def _within(hint: Any) -> Within | None:
    """What an ``Annotated`` says to us; those of third parties may hold anything else."""
    return next((one for one in hint.__metadata__ if isinstance(one, Within)), None)


def _has_keys(hint: object) -> bool:
    return is_typeddict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def _is_a(hint: object, base: type) -> bool:
    origin = get_origin(hint) or hint
    return inspect.isclass(origin) and issubclass(origin, base)


def _dotted(at: str, key: object) -> str:
    plain = type(key) is str and len(key) <= 60 and key.isidentifier()  # as nearly all are, of thousands
    told = key if plain else one_line(key, 60)
    return f"{at}.{told}" if at else str(told)


def line_of(value: object, hint: object, at: str, how: Reading) -> str:
    """What was expected at a place and what was found, of the value as a whole."""
    told = f"{at}: expected {called(hint, how.names)}"
    if get_origin(hint) is Literal:
        return f"{told}; got {shown(value)}"
    return f"{told}, got {how.shows(value)}"


def _too_long(value: Sized, at: str, most: int) -> str:
    what = "letters" if isinstance(value, str | bytes) else "entries"
    return f"{at}: expected at most {most:,} {what}, got {len(value):,}; give fewer"
