"""Short digests that tell pictures with their labels apart, so that what was computed of one can be found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

#: Raised when targets of the same files and options come out differently than before.
_READING = 2


def digest(*facts: object) -> str:
    """32 hexadecimal digits of SHA-256 over what the facts print as."""
    return hashlib.sha256(repr((_READING, *facts)).encode()).hexdigest()[:32]


def stamps(files: Iterable[Path], root: Path) -> list[tuple[str, int, int]]:
    """(path from ``root``, bytes, time of the last change in nanoseconds) of each file.

    Raises:
        OSError: a file that is not there.
    """
    found = []
    for file in files:
        told = file.stat()
        name = file.relative_to(root) if file.is_relative_to(root) else file
        found.append((name.as_posix(), told.st_size, told.st_mtime_ns))
    return found
