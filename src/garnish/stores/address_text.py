"""Addresses of places, ``s3://bucket/prefix``, and names of files there: what is one, and what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

from garnish.errors import OptionError, showable, shown

#: As RFC 3986 has it; a letter of a drive is none.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
#: Schemes that name no place for files here.
_OTHERS = ("hub", "ray")
#: fsspec's protocols that wrap other ones, or whose address is content.
_WRAPPING = (
    *(
        "blockcache",
        "cached",
        "filecache",
        "simplecache",
        "dir",
        "generic",
        "reference",
        "data",
        "dask",
        "async_wrapper",
    ),
    *("zip", "tar", "libarchive"),
)
_WITH_PORT = re.compile("[^:@]+:[0-9]{1,5}")
#: Longest name of an object in S3, bytes.
_MOST_NAME = 1024
_MOST_ADDRESS = 4096
_FORM = "write s3://bucket/prefix, gs://bucket/prefix or a path"


def is_address(text: object) -> bool:
    """Whether a text names a place by its scheme, as ``s3://bucket/prefix`` does; ``hub:`` and ``ray://`` do not."""
    if isinstance(text, Path) or not isinstance(text, str | os.PathLike):
        return False
    found = _SCHEME.match(str(os.fspath(text)))
    return found is not None and found[1].lower() not in _OTHERS


def checked_address(text: str) -> tuple[str, str]:
    """The scheme, in lower case, and the rest of an address, without slashes at the end.

    Raises:
        OptionError: no address of files, or it holds a password or a query, which is not repeated.
    """
    found = _SCHEME.match(text)
    if found is None or found[1].lower() in _OTHERS:
        raise OptionError(f"{shown(text, 120)}: is no address of files; {_FORM}")
    scheme, rest = found[1].lower(), text[found.end() :]
    host = rest.partition("/")[0]
    if ":" in host and "@" in rest and not _WITH_PORT.fullmatch(host):  # a secret may hold a slash
        raise OptionError(
            f"{scheme}://…: holds a password, which ends in logs and lists of processes; leave it out, and give it as"
            " the store's own tools take it (AWS_PROFILE, AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if "?" in rest:
        raise OptionError(
            f"{scheme}://{shown(rest.partition('?')[0], 80)[1:-1]}?…: has a query (?…), which may hold a"
            " signature; leave it out, and give credentials by the environment"
        )
    if "::" in text or scheme in _WRAPPING:
        raise OptionError(f"{shown(text, 120)}: names a place within another; fetch or unpack it first, or {_FORM}")
    if showable(text) != text or len(text.encode("utf-8", "replace")) > _MOST_ADDRESS:
        raise OptionError(f"{shown(text, 120)}: can be no address (its characters, or its length); correct it")
    rest = rest.rstrip("/")
    if scheme != "memory" and not rest.strip("/"):
        raise OptionError(f"{scheme}://: names no bucket or folder; {_FORM}")
    parts = rest.lstrip("/").split("/") if rest.strip("/") else []
    if any(part in ("", ".", "..") for part in parts):
        raise OptionError(f"{shown(text, 120)}: has a part that is empty, . or ..; write it out")
    return scheme, rest


def checked_name(name: str, where: object) -> str:
    """The relative name of a file, with ``/``.

    Raises:
        OptionError: it would leave the place, or can be no name; ``where`` is named in the message.
    """
    parts = name.split("/")
    odd = any(part in ("", ".", "..") for part in parts) or showable(name) != name
    if odd or len(name.encode("utf-8", "replace")) > _MOST_NAME:
        raise OptionError(
            f"{where}: {shown(name, 80)} is no name of a file in it; give a relative one without '..', empty parts and"
            f" control characters, of at most {_MOST_NAME:,} bytes"
        )
    return name
