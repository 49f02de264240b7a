"""File patterns of a description: ``{split}``, ``{name}``, and the shell wildcards ``*``, ``**/`` and ``?``."""

from __future__ import annotations

import re

from garnish.errors import OptionError, shown

#: Most levels of folders in a pattern and below its ``**``, and longest name, bytes: what file systems take.
MOST_LEVELS, _NAME = 32, 255
#: Most wildcards between two slashes, and in all: matching takes the longest name to the power of their number.
_MOST_IN_PART, _MOST = 3, 8


#: Suffixes of files that list names.
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml")


def is_list(value: str) -> bool:
    """Whether the value of a split names a file that lists names."""
    return value.lower().endswith(LIST_SUFFIXES)


def columns_of(pattern: str) -> list[str]:
    """The fields of a pattern that stand for columns of a table."""
    fields = re.findall(r"\{([^{}]*)\}", pattern)
    return [field for field in dict.fromkeys(fields) if field not in ("split", "name")]


def checked_pattern(pattern: str, where: str, *, has_table: bool = False) -> str:
    """Return the pattern; raises OptionError if it leaves ``path`` or has other fields than these two.

    Args:
        pattern: as written.
        where: prefix of messages.
        has_table: whether other fields stand for the columns of a table.
    """
    for field in re.findall(r"\{[^}]*\}?", pattern):
        if field not in ("{split}", "{name}") and not (has_table and re.fullmatch(r"\{[^{}]+\}", field)):
            others = ", and columns of the table in braces" if has_table else ""
            raise OptionError(f"{where}: {pattern!r} has {field}; only {{split}} and {{name}} are filled{others}")
    parts = pattern.split("/")
    if len(parts) > MOST_LEVELS or max(len(part.encode(errors="replace")) for part in parts) > _NAME:
        raise OptionError(f"{where}: {shown(pattern)} is too long for a path; shorten it")
    if not stays_below(pattern):
        raise OptionError(f"{where}: {pattern!r} must be relative to `path`, without '..'; set `path` instead")
    if any("**" in part and part != "**" for part in parts):
        raise OptionError(f"{where}: {pattern!r} has ** within a name; write **/ for any folders, or * within a name")
    counts = [len(re.findall(r"\*\*?|\{name\}", part)) for part in parts]
    if max(counts) > _MOST_IN_PART or sum(counts) > _MOST:
        raise OptionError(
            f"{where}: {shown(pattern)} has {sum(counts)} wildcards; write {_MOST_IN_PART} between two slashes and"
            f" {_MOST} in all at most"
        )
    return pattern


def checked_split(value: str, where: str) -> str:
    """Return what a split stands for, the name of a folder or of a list; raises OptionError if it is a pattern."""
    if found := re.search(r"[*?{}]", value):
        raise OptionError(f"{where}: {shown(value)} has {found[0]}; write the name of one folder, or of a text file")
    return checked_pattern(value, where)


def as_glob(pattern: str) -> str:
    """Pattern in the manner of ``Path.glob`` that finds at least the paths of :func:`as_regex`.

    A ``{name}`` that begins after a slash may span folders.
    """
    parts: list[str] = []
    for part in pattern.split("/"):
        deep = parts and part.startswith("{name}")
        wild = part if part == "**" else re.sub(r"\*+", "*", part.replace("{name}", "*"))
        parts.append(f"**/{wild}" if deep else wild)
    return "/".join(parts)


def stays_below(name: str) -> bool:
    """Whether a relative name does not lead out of its folder."""
    parts = name.split("/")
    return not (name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or re.match(r"[A-Za-z]:", name))


def filled(pattern: str, **values: str) -> str:
    """A pattern with some of its fields filled."""
    # str.format would allow attribute access ("{name.x}"), which a description must not have
    for field, value in values.items():
        pattern = pattern.replace("{" + field + "}", value)
    return pattern


def as_regex(pattern: str) -> str:
    """Regular expression for the paths that match a pattern; a repeated ``{name}`` must be the same text."""
    tokens = {"{name}": "(?P<name>.+)", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    pattern = re.sub(r"(\*\*/)+", "**/", pattern)  # several would be tried in every order
    parts = re.split(r"(\{name\}|\*\*/|\*|\?)", pattern)
    first = parts.index("{name}")
    again = {**tokens, "{name}": "(?P=name)"}  # a repeated {name} must be the same text
    return "".join((tokens if k <= first else again).get(part, re.escape(part)) for k, part in enumerate(parts))
