"""The family that builds a name."""

from __future__ import annotations

import re

from garnish import registry
from garnish.backbones.backbone import Backbone
from garnish.errors import OptionError, shown, suggest

#: A tag of timm's behind a name, such as ``lvd142m``: never a path or an address.
_TAG = re.compile(r"[\w-]+(\.[\w-]+)*")


def family(name: str) -> type[Backbone]:
    """The family that builds ``name``.

    Raises:
        OptionError: no family knows the name; the message gives the nearest ones.
    """
    cls, known = find_family(name)
    if cls is None:
        raise OptionError(f"unknown backbone {shown(name)}{suggest(name, known, limit=6)}")
    return cls


def find_family(name: str) -> tuple[type[Backbone] | None, list[str]]:
    """The family that builds ``name``, a tag behind a dot allowed, or None; and the names of all that were asked."""
    plain, dot, tag = name.partition(".")
    known: list[str] = []
    for cls in registry.classes("backbones").values():
        names = cls.names()  # type: ignore[attr-defined]
        if name in names or (plain in names and (not dot or _TAG.fullmatch(tag))):
            return cls, known
        known.extend(names)
    return None, known
