"""Paths as people and files write them: checked before the system is asked about them. Nothing here needs torch."""

from __future__ import annotations

import os
from pathlib import Path

from garnish.errors import GarnishError, OptionError, shown

#: Longest name and longest path that the usual systems take, bytes.
_NAME, _PATH = 255, 4096


def given_path(text: str | os.PathLike[str], where: str, error_kind: type[GarnishError] = OptionError) -> Path:
    """A path with ``~`` filled.

    Args:
        text: the path; a ``~name`` without such a user stays as it is.
        where: the option or file that it comes from, for the message.
        error_kind: raised for an empty path, and for one that no file system can have: with a character that is not
            text, or with a name too long. Otherwise each of these is another error of another call.
    """
    written = os.fspath(text)
    if not written:
        raise error_kind(f"{where}: an empty path; name a file or a folder, or leave it out")
    expanded = os.path.expanduser(written)  # noqa: PTH111 (pathlib raises RuntimeError for an unknown ~name)
    try:
        fits = "\0" not in expanded and len(whole := os.fsencode(expanded)) <= _PATH
        fits = fits and max(map(len, whole.replace(b"\\", b"/").split(b"/"))) <= _NAME
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise error_kind(f"{where}: {shown(written)} can be no path (its characters, or its length); correct it")
    return Path(expanded)
