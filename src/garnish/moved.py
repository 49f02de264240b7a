"""Modules moved since 0.1: importing an old name raises an error with the new one, until release :data:`GONE`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import resources
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from typing import NoReturn, final

#: The release that has this file no longer; tests/test_deprecated.py holds it.
GONE = "0.3"


@cache
def places() -> dict[str, str]:
    """Old name of a module → its new name, both with ``garnish.`` in front."""
    lines = resources.files("garnish").joinpath("assets", "moved.txt").read_text("utf-8").splitlines()
    return {f"garnish.{old}": f"garnish.{new}" for old, new in map(str.split, lines)}


@final
class _Finder(MetaPathFinder):
    """An import hook, asked last, so only for modules that do not exist."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.startswith("garnish.") and fullname in places():
            # without ``name=``, as ``from garnish import …`` would otherwise swallow the error
            raise ModuleNotFoundError(f"{fullname} is now {places()[fullname]}; import it from there")


def say_where() -> None:
    """Install the import hook for old names of modules."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def names_of(package: str) -> Callable[[str], NoReturn]:
    """``__getattr__`` of a package that has the name of an old module."""

    def gone(name: str) -> NoReturn:
        # of a module of the package ``from package import NAME`` asks here first, and then imports it
        if name.startswith("__") or find_spec(f"{package}.{name}"):
            raise AttributeError(name)
        new = places()[package]
        raise ImportError(f"what was in {package} is now in {new}; write: from {new} import {name}")

    return gone
