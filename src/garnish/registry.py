"""Finding classes by name: the folder of a file is its registration, the constructor's keywords are the schema.

A *kind* is a folder (``adapters``, ``heads``, ``tasks``, ``decodings``, ``balancing``, ``backbones``,
``backbones/transformers``, ``data/labels``, ``data/layouts``, ``data/annotations``, ``data/foreign``,
``doctor/checks``). Every final class in a file of that folder that derives from the kind's base class can be named.
Third parties add to a kind through an entry point group ``garnish.<kind>`` that names a class. A class of a script or a
notebook is found by its name too, once it is defined; it is not listed.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from garnish.checking.plain_data import LONGEST, Json, Reading, read_as
from garnish.errors import OptionError, one_line, showable, shown, suggest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: kind → (folder, module of the base class, name of the base class)
KINDS = {
    "adapters": ("garnish.adapters", "garnish.engine.adapter", "Method"),
    "heads": ("garnish.heads", "garnish.heads.head", "Head"),
    "tasks": ("garnish.tasks", "garnish.tasks.task", "Task"),
    "decodings": ("garnish.decodings", "garnish.decodings.decoding", "Decoding"),
    "balancing": ("garnish.balancing", "garnish.balancing.balancing", "Balancing"),
    "backbones": ("garnish.backbones", "garnish.backbones.backbone", "Backbone"),
    "transformers": (
        "garnish.backbones.transformers",
        "garnish.backbones.transformers.transformers_model",
        "TransformersModel",
    ),
    "readers": ("garnish.data.labels", "garnish.data.labels.reader", "Reader"),
    "layouts": ("garnish.data.layouts", "garnish.data.layouts.layout", "Layout"),
    "foreign": ("garnish.data.foreign", "garnish.data.foreign.foreign_description", "ForeignDescription"),
    "annotations": ("garnish.data.annotations", "garnish.data.annotations.annotation_format", "AnnotationFormat"),
    "checks": ("garnish.doctor.checks", "garnish.doctor.check", "Check"),
}


T = TypeVar("T")


class SpecFacts(TypedDict):
    """A class by name with its options, as stored in files."""

    name: str
    options: dict[str, Json]


_OPTIONS = Reading(wraps=True, longest=LONGEST)

#: kind → the page that says how one more is added
_PAGES = {
    "adapters": "docs/add-a-method.md",
    "heads": "docs/add-a-head.md",
    "tasks": "docs/add-a-task.md",
    "decodings": "docs/add-a-decoding.md",
    "backbones": "docs/add-a-backbone.md",
    "readers": "docs/add-a-reader.md",
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
        at = f"entry point {point.name!r} of group garnish.{kind}"
        try:
            value = point.load()
        except Exception as error:  # whatever the import of somebody else's module raises
            told = f"{type(error).__name__}: {one_line(error, 120)}"
            raise OptionError(f"{at} cannot be loaded ({told}); fix or uninstall its package") from error
        if not (inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)):
            raise OptionError(f"{at} is not a {base_name} that can be made; fix its package")
        if point.name != value.__name__:  # bundles and recipes find a class by its own name
            raise OptionError(f"{at} is the class {value.__name__}; call it so in its package")
        if found.setdefault(point.name, value) is not value:
            taken = found[point.name].__module__
            raise OptionError(f"{at} stands for {value.__module__}, but {taken} has that name; rename one of them")
    return found


def find(kind: str, name: str) -> type:
    """The class called ``name`` of a kind: an installed one, else one that somebody's module has defined.

    Raises:
        OptionError: no such name; the message lists what exists and what is nearest. Or two modules define it.
    """
    known = classes(kind)
    if not isinstance(name, str):  # a file of a stranger, or a value of the command line, may say anything
        raise OptionError(f"{kind.removesuffix('s')}: expected a name, got {shown(name)}; {suggest('', known)[2:]}")
    if name in known:
        return known[name]
    mine = _defined(kind, name)
    if mine is not None:
        return mine
    told = f"unknown {kind.removesuffix('s')} {shown(name)}{suggest(name, known)}"
    if kind in _PAGES:
        told += f"; one of your own: import its module first, or entry point garnish.{kind} ({_PAGES[kind]})"
    raise OptionError(told)


def check_own(spec: object, kind: str, where: str) -> None:
    """Raise for an object of a class of somebody's own that no file could describe; ours and installed ones pass.

    Raises:
        OptionError: a constructor that is not a dataclass's, whose options are unknown; or a name that is taken.
    """
    cls = type(spec)
    if is_installed(kind, cls):
        return
    maker = next(base for base in cls.__mro__ if "__init__" in vars(base))
    if "__dataclass_params__" not in vars(maker):
        raise OptionError(
            f"{where}: {cls.__name__} has an __init__ of its own, so its options could not be saved; make it a frozen"
            f" dataclass, whose fields are the options: @dataclass(frozen=True, kw_only=True) ({_PAGES[kind]})"
        )
    if cls.__name__ in classes(kind):
        raise OptionError(
            f"{where}: the class {cls.__name__} of {cls.__module__} has the name of another, which its bundles would"
            " load; rename it"
        )


def is_installed(kind: str, cls: type) -> bool:
    """Whether every process finds the class: it is of this package, or an entry point names it."""
    return classes(kind).get(cls.__name__) is cls


def tell_of_own(specs: Iterable[tuple[str, object]], where: str) -> None:
    """Warn of objects that are written to a file whose classes a reader may not find.

    Args:
        specs: kind and object.
        where: the file, for the message.
    """
    found = {type(spec): kind for kind, spec in specs if not is_installed(kind, type(spec))}
    if not found:
        return
    names = ", ".join(f"{cls.__name__} ({cls.__module__})" for cls in found)
    kind = next(iter(found.values()))
    told = (
        f"{where}: loads only where your class is found: {one_line(names, 120)}; import its module before gn.load, or"
        f" install a package with an entry point of group garnish.{kind} ({_PAGES[kind]})"
    )
    warnings.warn(showable(told), stacklevel=2)


def _defined(kind: str, name: str) -> type | None:
    """The class of that name in a module that is imported already, or None; of one defined anew, the last.

    Raises:
        OptionError: two modules define it.
    """
    base = getattr(importlib.import_module(KINDS[kind][1]), KINDS[kind][2])
    ahead: list[type] = [base]
    found: dict[tuple[str, str], type] = {}
    while ahead:
        cls = ahead.pop()
        ahead += type.__subclasses__(cls)  # in the order of their definition, so the last is looked at first
        ours = cls.__module__.split(".")[0] == "garnish"  # those that can be named are installed
        if cls.__name__ == name and not ours and not inspect.isabstract(cls):
            found.setdefault((cls.__module__, cls.__qualname__), cls)
    if len(found) > 1:
        places = ", ".join(".".join(place) for place in sorted(found))
        raise OptionError(f"{kind.removesuffix('s')} {shown(name)}: several classes have it ({one_line(places, 200)})")
    return next(iter(found.values()), None)


def build(kind: str, name: str, options: Mapping[str, object] | None = None, *, where: str = "") -> Any:
    """Make the object ``name`` of a kind from plain options (as in YAML, JSON or on the command line).

    Raises:
        OptionError: unknown name or option, missing option, or an invalid value; one line, options listed.
    """
    return construct(find(kind, name), options, where=where or name)


def construct(cls: type[T], options: Mapping[str, object] | None = None, *, where: str) -> T:
    """Make a dataclass from plain options; its fields, including nested dataclasses, are the schema.

    Raises:
        OptionError: as :func:`build`.
    """
    return read_as(dict(options or {}), cls, where, _OPTIONS)


def options_of(spec: DataclassInstance) -> dict[str, Json]:
    """The options that rebuild ``spec`` through :func:`build`, as JSON-ready values."""
    return {f.name: plain(getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.init}


def describe(spec: DataclassInstance) -> SpecFacts:
    """How a spec is stored in a bundle."""
    return {"name": type(spec).__name__, "options": options_of(spec)}


def flat(spec: DataclassInstance) -> dict[str, Json]:
    """``{"name": class name, option: value, ...}``: how a recipe writes a spec."""
    return {"name": type(spec).__name__, **options_of(spec)}


def plain(value: object, *, finite: bool = False) -> Json:
    """``value`` as plain values for JSON and YAML: specs become mappings of their options, tuples lists, paths text.

    Args:
        value: nested to any depth; values of other types are kept.
        finite: numbers that are not finite become None, since standard JSON does not have them.
    """
    if finite and isinstance(value, float) and not math.isfinite(value):
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return options_of(value)
    if isinstance(value, tuple | list):
        return [plain(inner, finite=finite) for inner in value]
    if isinstance(value, Mapping):
        return {str(key): plain(inner, finite=finite) for key, inner in value.items()}
    return str(value) if isinstance(value, Path) else value
