"""Name → class, by module path: the file's place is its registration, its constructor's keywords are its schema.

A *kind* is a folder (``adapters``, ``heads``, ``tasks``, ``balancing``, ``backbones``, ``data/labels``,
``data/layouts``). Every final class in a file of that folder that derives from the kind's base class can be named.
Third parties add to a kind through an entry point group ``garnish.<kind>`` that names a class.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import types
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from garnish.checking.arguments import fits, hints_of
from garnish.errors import OptionError, suggest

#: kind → (folder, module of the base class, name of the base class)
KINDS = {
    "adapters": ("garnish.adapters", "garnish.engine.adapter", "Method"),
    "heads": ("garnish.heads", "garnish.heads.head", "Head"),
    "tasks": ("garnish.tasks", "garnish.tasks.task", "Task"),
    "balancing": ("garnish.balancing", "garnish.balancing.balancing", "Balancing"),
    "backbones": ("garnish.backbones", "garnish.backbones.backbone", "Backbone"),
    "readers": ("garnish.data.labels", "garnish.data.labels.reader", "Reader"),
    "layouts": ("garnish.data.layouts", "garnish.data.layouts.layout", "Layout"),
}


@cache
def classes(kind: str) -> dict[str, type]:
    """All final classes of a kind by name: those in the kind's folder, then those of installed entry points."""
    folder, module_name, base_name = KINDS[kind]
    base = getattr(importlib.import_module(module_name), base_name)
    package = importlib.import_module(folder)
    found: dict[str, type] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{folder}.{info.name}")
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__:
                if inspect.isabstract(value) or name.startswith("_") or value is base:
                    continue
                found[name] = value
    for point in entry_points(group=f"garnish.{kind}"):
        value = point.load()
        if not (inspect.isclass(value) and issubclass(value, base)):
            raise OptionError(
                f"entry point {point.name!r} of group garnish.{kind} is not a {base_name}; fix its package"
            )
        found[point.name] = value
    return found


def find(kind: str, name: str) -> type:
    """The class called ``name`` of a kind.

    Raises:
        OptionError: no such name; the message lists what exists and what is nearest.
    """
    known = classes(kind)
    if name not in known:
        raise OptionError(f"unknown {kind.removesuffix('s')} {name!r}{suggest(name, known)}")
    return known[name]


def build(kind: str, name: str, options: Mapping[str, Any] | None = None, *, where: str = "") -> Any:
    """Make the object ``name`` of a kind from plain options (as they stand in YAML, JSON or on the command line).

    Raises:
        OptionError: unknown name or option, missing option, or a value the class refuses; one line, options listed.
    """
    return construct(find(kind, name), options, where=where or name)


def construct(cls: type, options: Mapping[str, Any] | None = None, *, where: str) -> Any:
    """Make a dataclass from plain options; its fields are the schema, those that are dataclasses as well included.

    Raises:
        OptionError: as :func:`build`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    given = dict(options or {})
    for key in given:
        if key not in fields:
            raise OptionError(f"{where}: unknown option {key!r}{suggest(str(key), fields, limit=40)}")
    missing = [
        n
        for n, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and n not in given
    ]
    if missing:
        raise OptionError(f"{where}: option {missing[0]!r} is required; options: {', '.join(fields)}")
    hints = hints_of(cls)
    values = {key: _coerce(value, hints.get(key, Any), f"{where}.{key}") for key, value in given.items()}
    return cls(**values)


def options_of(spec: Any) -> dict[str, Any]:
    """The options that rebuild ``spec`` through :func:`build`, as JSON-ready values."""
    return {f.name: plain(getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.init}


def describe(spec: Any) -> dict[str, Any]:
    """``{"name": class name, "options": {...}}``: how a spec is stored in a bundle."""
    return {"name": type(spec).__name__, "options": options_of(spec)}


def flat(spec: Any) -> dict[str, Any]:
    """``{"name": class name, option: value, ...}``: how a recipe writes a spec."""
    return {"name": type(spec).__name__, **options_of(spec)}


def plain(value: Any, *, finite: bool = False) -> Any:
    """``value`` as JSON and YAML have it: specs become mappings of their options, tuples lists, paths text.

    Args:
        value: of any depth; what is none of these is kept.
        finite: numbers that are not finite become None, since standard JSON has none of them.
    """
    if finite and isinstance(value, float) and not math.isfinite(value):
        return None
    if dataclasses.is_dataclass(value):
        return options_of(value)
    if isinstance(value, tuple | list):
        return [plain(inner, finite=finite) for inner in value]
    if isinstance(value, Mapping):
        return {str(key): plain(inner, finite=finite) for key, inner in value.items()}
    return str(value) if isinstance(value, Path) else value


def _coerce(value: Any, hint: Any, at: str) -> Any:
    """Check ``value`` against a field's type; lists become tuples, ints become floats where a float is wanted."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if isinstance(value, Mapping):  # its own message, not that of the union
            for option in get_args(hint):
                if dataclasses.is_dataclass(option) or _is_mapping(option):
                    return _coerce(value, option, at)
        for option in get_args(hint):
            try:
                return _coerce(value, option, at)
            except OptionError:
                continue
        names = " or ".join(_name_of(o) for o in get_args(hint))
        raise OptionError(f"{at}: expected {names}, got {value!r}")
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return construct(hint, value, where=at)
    if origin is tuple:
        items = [value] if isinstance(value, str | int | float) else value
        if not isinstance(items, list | tuple):
            raise OptionError(f"{at}: expected a list, got {value!r}")
        inner = get_args(hint)
        kinds = [inner[0]] * len(items) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        if len(kinds) != len(items):
            raise OptionError(f"{at}: expected {len(kinds)} values, got {len(items)}")
        return tuple(_coerce(v, k, at) for v, k in zip(items, kinds, strict=True))
    if _is_mapping(hint):
        if not isinstance(value, Mapping):
            raise OptionError(f"{at}: expected a mapping, got {value!r}")
        inner = (*get_args(hint), Any)[1]
        return {key: _coerce(entry, inner, f"{at}.{key}") for key, entry in value.items()}
    if origin is not None and str(origin).endswith("Literal"):
        if value in get_args(hint):
            return value
        raise OptionError(f"{at}: expected one of {', '.join(map(str, get_args(hint)))}; got {value!r}")
    if fits(value, hint):
        return float(value) if hint is float else value
    raise OptionError(f"{at}: expected {_name_of(hint)}, got {value!r}")


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint)
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def _name_of(hint: Any) -> str:
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        return "a list" if Ellipsis in inner else f"a list of {len(inner)}"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
