"""Short digests that identify a picture with its labels, used as keys of cached features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

#: Version; increased when the same files and options give other targets than before.
_READING = 2


def digest(*facts: object) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of the facts' ``repr``."""
    return hashlib.sha256(repr((_READING, *facts)).encode()).hexdigest()[:32]


def stamps(files: Iterable[Path], root: Path) -> list[tuple[str, int, int]]:
    """(path relative to ``root``, size in bytes, modification time in nanoseconds) of each file.

    Raises:
        OSError: a file does not exist.
    """
    found = []
    for file in files:
        told = file.stat()
        name = file.relative_to(root) if file.is_relative_to(root) else file
        found.append((name.as_posix(), told.st_size, told.st_mtime_ns))
    return found
