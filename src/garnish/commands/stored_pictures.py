"""Pictures that lie in a store, found by their addresses."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import final

from garnish.errors import DataError, OptionError
from garnish.files.given_pictures import VIDEO_SUFFIXES, picture_files
from garnish.files.pictures import PICTURE_SUFFIXES
from garnish.output import logger
from garnish.stores.facts import PlaceFacts
from garnish.stores.place import Place

_log = logger(__name__)


@final
@dataclass(frozen=True)
class StoredPicture:
    """A picture in a place.

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


def stored_pictures(text: str, out: Place | None) -> dict[str, Path | StoredPicture]:
    """Name (of the maps to write) → picture, of an address: of one, of all below a prefix, or of a pattern.

    Args:
        text: the address; ``file:///…`` gives paths.
        out: where maps are sent, which is not looked into below a prefix.

    Raises:
        DataError: there is no picture. OptionError: no address.
    """
    known = (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
    if glob.has_magic(text):
        base, pattern = _parted(text)
        found = base.listed(pattern)
    else:
        if not text.endswith("/") and text.lower().endswith(known):
            base, name = Place.of_file(text)
            facts = base.facts(name)
            if facts is not None:
                return {Path(name).stem: base.local / name if base.local else StoredPicture(base, name, facts)}
        base = Place.of(text)
        found = base.listed()
        inner = "" if out is None else str(out).removeprefix(f"{base}/")
        if out is not None and inner != str(out):
            _log.info("%s: is where maps are written; what lies there is not predicted", out)
            found = {name: facts for name, facts in found.items() if not name.startswith(f"{inner}/")}
    if base.local is not None:
        return dict(picture_files([str(base.local) if not glob.has_magic(text) else text.partition("://")[2]]))
    taken = {name: facts for name, facts in found.items() if name.lower().endswith(known)}
    others = {ending for name in found if (ending := Path(name).suffix) and ending.lower() not in known}
    if not taken:
        raise DataError(f"{text}: holds no picture ({', '.join(known)}); check the address")
    if others:
        _log.info("%s: files that end in %s are no pictures and were left out", text, ", ".join(sorted(others)))
    return {name.rpartition(".")[0]: StoredPicture(base, name, facts) for name, facts in taken.items()}


def _parted(text: str) -> tuple[Place, str]:
    """The place before the first part with wildcards, and the pattern below it."""
    scheme, _, rest = text.partition("://")
    parts = rest.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    if not "".join(parts[:first]) and scheme != "memory":
        raise OptionError(f"{text}: has a wildcard for its bucket; name the bucket")
    return Place.of(f"{scheme}://{'/'.join(parts[:first])}"), "/".join(parts[first:])
