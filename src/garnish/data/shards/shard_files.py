"""The tar files that a pattern with ranges names: ``s3://bucket/{000..099}.tar``, ``train/*.tar``."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.errors import DataError, OptionError, plural, shown
from garnish.stores.address_text import is_address
from garnish.stores.facts import PlaceFacts
from garnish.stores.place import Place

#: Shards of a split, at most.
_MOST = 100_000
_RANGE = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")


@final
@dataclass(frozen=True)
class Shard:
    """A tar file in a place.

    Attributes:
        place: where.
        name: its name there.
        facts: what was listed of it.
    """

    place: Place
    name: str
    facts: PlaceFacts

    def __str__(self) -> str:
        return f"{self.place}/{self.name}"


def shard_files(pattern: str, base: Path, where: str) -> list[Shard]:
    """The shards that a pattern names, in the order of their names.

    Args:
        pattern: an address or a path, with ranges ``{000..099}`` and the wildcards ``*``, ``?`` and ``[…]``.
        base: the folder that paths are relative to.
        where: the option, for messages.

    Raises:
        OptionError: no such address or range. DataError: a shard of a range is not there, or none fits.
    """
    scheme, slashes, rest = pattern.partition("://") if is_address(pattern) else ("", "", str(base / pattern))
    parts = rest.split("/")
    first = next((n for n, part in enumerate(parts) if re.search(r"[*?\[{]", part)), len(parts) - 1)
    below = "/".join(parts[first:])
    wanted = _expanded(below, where)
    place = Place.of(f"{scheme}{slashes}{'/'.join(parts[:first])}" or "/")
    found = place.listed(_RANGE.sub("*", below))
    if any(wild in below for wild in "*?["):
        pattern_of = [re.compile(_RANGE.sub("[0-9]+", re.escape(below)))] if "{" in below else []
        if pattern_of:
            raise OptionError(f"{where}: {shown(pattern)} has a range and a wildcard; write one of the two")
        wanted = list(found)
    if lacking := [name for name in wanted if name not in found]:
        raise DataError(
            f"{where}: {place}/{lacking[0]}: there is no such shard ({plural(len(lacking), 'shard')} of {len(wanted)}"
            " lacking); correct the pattern, or send it again"
        )
    if not wanted:
        raise DataError(f"{where}: no shard fits {shown(pattern, 120)}; correct the pattern")
    return [Shard(place, name, found[name]) for name in wanted]


def _expanded(pattern: str, where: str) -> list[str]:
    """All names of a pattern with ranges; both ends are among them."""
    pieces: list[list[str]] = []
    count, end = 1, 0
    for match in _RANGE.finditer(pattern):
        first, last = int(match[1]), int(match[2])
        count *= max(last - first + 1, 0)
        if not 0 < count <= _MOST:
            raise OptionError(f"{where}: {shown(pattern)} names {count:,} shards; name 1 to {_MOST:,}")
        width = len(match[1]) if match[1].startswith("0") or len(match[1]) == len(match[2]) else 0
        pieces += [[pattern[end : match.start()]], [f"{number:0{width}}" for number in range(first, last + 1)]]
        end = match.end()
    rest = pattern[end:]
    if re.search("[{}]", "".join(piece[0] for piece in pieces[::2]) + rest):
        raise OptionError(f"{where}: {shown(pattern)} has braces that are no range of numbers such as {{000..099}}")
    return ["".join(parts) for parts in itertools.product(*pieces, [rest])]
