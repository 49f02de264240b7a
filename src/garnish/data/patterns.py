"""Patterns of files in a description: ``{split}``, ``{name}``, and ``*``, ``**/`` and ``?`` as shells have them."""

from __future__ import annotations

import re

from garnish.errors import OptionError


def is_list(value: str) -> bool:
    """Whether the value of a split names a text file that lists names."""
    return value.lower().endswith(".txt")


def checked_pattern(pattern: str, where: str) -> str:
    """A pattern that stays below ``path`` and has only fields we fill."""
    for field in re.findall(r"\{[^}]*\}?", pattern):
        if field not in ("{split}", "{name}"):
            raise OptionError(f"{where}: {pattern!r} has {field}; only {{split}} and {{name}} are filled")
    if not stays_below(pattern):
        raise OptionError(f"{where}: {pattern!r} must be relative to `path`, without '..'; set `path` instead")
    return pattern


def stays_below(name: str) -> bool:
    """Whether a name stays below the folder that it is relative to."""
    parts = name.split("/")
    return not (name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or re.match(r"[A-Za-z]:", name))


def filled(pattern: str, **values: str) -> str:
    """A pattern with some of its fields filled."""
    # str.format would read attributes of what it fills ("{name.x}"); a description is data
    for field, value in values.items():
        pattern = pattern.replace("{" + field + "}", value)
    return pattern


def as_regex(pattern: str) -> str:
    """What the names that a pattern finds look like; one that it holds twice is the same name."""
    tokens = {"{name}": "(?P<name>.+)", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\{name\}|\*\*/|\*|\?)", pattern)
    first = parts.index("{name}")
    again = {**tokens, "{name}": "(?P=name)"}  # a name that stands twice is the same name
    return "".join((tokens if k <= first else again).get(part, re.escape(part)) for k, part in enumerate(parts))
