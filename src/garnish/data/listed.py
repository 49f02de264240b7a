"""Finding the pictures that a list names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from garnish.data.name_lists import ListedName
from garnish.data.patterns import as_regex, filled, stays_below
from garnish.errors import DataError


def listed_pictures(
    names: Iterable[ListedName], root: Path, images: str, suffixes: tuple[str, ...]
) -> list[tuple[str, Path]]:
    """(name, file) of every picture of a list, in its order.

    An entry is what ``{name}`` (or the last ``*``) of the pattern stands for, with or without a picture's suffix; where
    no such picture exists, it is taken as a path relative to ``root`` that fits the pattern.

    Args:
        names: the entries.
        root: the folder of the set.
        images: pattern of the pictures, ``{split}`` filled.
        suffixes: of pictures; tried where the pattern names none.

    Raises:
        DataError: an entry that leads out of ``root``, or that names no picture or two.
    """
    pattern = images
    if "{name}" not in pattern:
        head, _, tail = pattern.rpartition("*")
        pattern = f"{head}{{name}}{tail}"
    whole = re.compile(as_regex(pattern))
    found = []
    for listed in names:
        text = listed.text.removeprefix("./")
        if not stays_below(text):
            raise DataError(
                f"{listed.where}: {listed.text!r} is not a plain relative name; write names without '..' or a '/' in"
                " front"
            )
        name = without_suffix(text, suffixes)
        first, there = files_there(root / filled(pattern, name=name), suffixes)
        if not there and (fits := whole.fullmatch(text)):
            name = without_suffix(fits["name"], suffixes)
            _, there = files_there(root / text, suffixes)
        if not there:
            raise DataError(
                f"{listed.where}: no picture {first}; restore it or remove the line (the head of a CSV column of names"
                " is `name`)"
                if ".csv" in listed.where and listed.where.endswith("line 1")
                else f"{listed.where}: no picture {first}; restore it or remove the line"
            )
        if len(there) > 1 and not there[0].samefile(there[1]):
            raise DataError(f"{listed.where}: {of_one_name(name, there[0], there[1], images)}")
        found.append((name, there[0]))
    return found


def without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """A name without the suffix of a picture; other dots belong to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in suffixes else name


def files_there(path: Path, suffixes: tuple[str, ...]) -> tuple[Path, list[Path]]:
    """The file that was looked for first, and the files that are there: the path, or with each suffix behind it."""
    places = [path]
    if path.suffix.lower() not in suffixes:
        places = [path.with_name(path.name + ending) for ending in (*suffixes, *map(str.upper, suffixes))]
    return places[0], [place for place in places if place.is_file()]


def of_one_name(name: str, one: Path, other: Path, images: str) -> str:
    """Message about two pictures that would share a label file, and what to do."""
    if one == other:
        return f"{one} is listed twice; remove one of the lines"
    told = f"{one} and {other} share the name {name!r}"
    if one.parent == other.parent:
        return f"{told}; write the ending into `images`, or move one of them away"
    # one {name} that spans all wildcards, so that folders become part of the name
    longer = re.sub(r"(\*|\{name\}).*(\*|\{name\})", "{name}", images)
    if longer == images or ("{split}" in images and "{split}" not in longer):
        return f"{told}; give one of them another name"
    return f"{told}; write `images: {longer}`, and name the labels alike"
