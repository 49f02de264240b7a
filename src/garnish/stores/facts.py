"""What is known of a file in a place without reading it, and which names a pattern fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, final

#: Where fsspec's file systems tell that an object is another one now, the surest first.
_VERSIONS = (
    *("ETag", "etag", "generation", "md5Hash", "content_md5", "checksum"),
    *("LastModified", "last_modified", "mtime", "updated", "modified", "created"),
)


#: A part that is not hidden.
_SHOWN = r"[^/.]"


@final
@dataclass(frozen=True)
class PlaceFacts:
    """A file in a place.

    Attributes:
        size: bytes.
        version: differs once the file was replaced: the store's ETag, or the time of its change; empty: not known.
    """

    size: int
    version: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> PlaceFacts | None:
        """From fsspec's description of it; None: a folder, or something without a size."""
        size = info.get("size", info.get("Size"))
        if info.get("type", "file") != "file" or not isinstance(size, int) or size < 0:
            return None
        found = next((value for key in _VERSIONS if (value := info.get(key)) not in (None, "")), "")
        if isinstance(found, datetime):
            found = found.timestamp()
        return cls(size, str(found).strip('"'))


def name_filter(pattern: str) -> Callable[[str], bool]:
    """Whether a name fits a pattern: ``*``, ``?`` and ``[…]`` within a part, ``**`` for any parts, also none.

    As in a shell, a part that begins with a dot is met only by one that does so itself.
    """
    *folders, last = pattern.split("/")
    written = "".join(f"(?:{_SHOWN}[^/]*/)*" if part == "**" else f"{_of_part(part)}/" for part in folders)
    written += f"(?:{_SHOWN}[^/]*/)*{_SHOWN}[^/]*" if last == "**" else _of_part(last)
    fits = re.compile(written).fullmatch
    return lambda name: fits(name) is not None


def fixed_part(pattern: str) -> str:
    """The folders that a pattern begins with, without wildcards: ``a/b`` of ``a/b/*.png``."""
    parts = pattern.split("/")[:-1]
    wild = next((number for number, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
    return "/".join(parts[:wild])


def _of_part(part: str) -> str:
    """The regular expression of what has no ``/``."""
    made = "" if part.startswith(".") else r"(?!\.)"
    for piece in re.findall(r"\[!?[^]/]+\]|.", part):
        if len(piece) > 1:
            inner = piece[1:-1].replace("\\", "\\\\").replace("^", "\\^").replace("[", "\\[")
            made += f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
        else:
            made += {"*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
    return made
