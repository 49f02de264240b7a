"""Reading large JSON files of strangers entry by entry, so that their lists are never in memory as Python's objects.

Nothing here needs torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

from garnish.checking.plain_data import Json
from garnish.errors import DataError, one_line, shown
from garnish.files.regular import read_regular

#: Largest file. COCO's largest list has 450 MB, LVIS' 1.1 GB; the text is held once while it is read.
MOST_LISTED = 2 * 2**30

_SPACE = re.compile(r"[ \t\n\r]*")


def json_entries(file: Path, lists: Collection[str], remedy: str) -> Iterator[tuple[str, Json]]:
    """The keys of the mapping that a JSON file holds, with their values, in the order of the file.

    Numbers may be infinite if the text has them too large; NaN and Infinity are refused.

    Args:
        file: UTF-8, of at most :data:`MOST_LISTED` bytes.
        lists: keys whose lists are given entry by entry: (key, entry) for each. An empty one gives nothing.
        remedy: what to do if it cannot be read.

    Raises:
        DataError: missing, too large, not UTF-8, not a mapping, a key that stands twice, or a value under one of
            ``lists`` that is no list; one line.
    """
    try:
        text = read_regular(file, MOST_LISTED).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({one_line(error, 120)}); {remedy}") from error
    try:
        yield from _entries(text, lists)
    except RecursionError:
        raise DataError(f"{file}: is damaged (it is nested too deeply); {remedy}") from None
    except ValueError as error:
        raise DataError(f"{file}: is damaged ({one_line(error, 120)}); {remedy}") from error


def _entries(text: str, lists: Collection[str]) -> Iterator[tuple[str, Json]]:
    read = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once).raw_decode
    seen: set[str] = set()
    at = _after(text, 0, "{", "a mapping")
    if text[at : at + 1] == "}":
        at = _skip(text, at + 1)
    else:
        while True:
            key, at = read(text, at)
            if not isinstance(key, str):
                raise ValueError(f"a key is no text at character {at}")
            if key in seen:
                raise ValueError(f"key {shown(key)} stands twice")
            seen.add(key)
            at = _after(text, _skip(text, at), ":", "a colon")
            if key not in lists:
                value, at = read(text, at)
                yield key, value
            else:
                at = _after(text, at, "[", f"a list under {shown(key)}")
                while text[at : at + 1] != "]":
                    value, at = read(text, at)
                    yield key, value
                    at = _skip(text, at)
                    if text[at : at + 1] == "]":
                        break
                    at = _after(text, at, ",", "a comma")
                    if text[at : at + 1] == "]":
                        raise ValueError(f"a comma without an entry behind it at character {at}")
                at += 1
            at = _skip(text, at)
            if text[at : at + 1] == "}":
                at = _skip(text, at + 1)
                break
            at = _after(text, at, ",", "a comma")
    if at != len(text):
        raise ValueError(f"something follows its end at character {at}")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _after(text: str, at: int, sign: str, what: str) -> int:
    """The place of what follows a sign; raises ValueError if something else stands there."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"expected {what} at character {at}, found {shown(text[at : at + 10])}")
    return _skip(text, at + 1)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {shown(twice)} stands twice")
    return made


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
