"""An entry of the folder of fetched files: its note, who uses it, and its removal.

Whoever has an entry's file open holds a shared lock on it; who removes it takes the lock alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import IO

#: Seconds that a file without a note counts as being written since its folder changed.
_UNDER_WAY = 600.0


def note_of(entry: Path) -> Path:
    """The note of an entry, written when its file is whole."""
    return entry / "note.json"


def keep_open_file(opened: IO[bytes]) -> None:
    """Keep a file from being removed until it is closed, if the system has such locks."""
    if os.name == "posix":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(opened.fileno(), fcntl.LOCK_SH)


def last_used(entry: Path) -> int:
    """When an entry was last used, nanoseconds; of one without a note, when something appeared in it."""
    try:
        return note_of(entry).stat().st_mtime_ns
    except OSError:
        return entry.stat().st_mtime_ns


def removed_unused(entry: Path, used: int) -> bool:
    """Remove an entry unless somebody has its file open, may be writing it, or used it since; whether it is gone."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as held:
        files = [file for file in entry.iterdir() if file != note_of(entry)]
        for file in files:
            opened = held.enter_context(file.open("rb"))
            if os.name == "posix":
                import fcntl

                fcntl.flock(opened.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_under_way = not note_of(entry).exists() and time.time() - entry.stat().st_mtime < _UNDER_WAY
        if is_under_way or last_used(entry) != used:
            return False
        for file in [note_of(entry), *files]:  # while they are locked: who waits for a lock sees that it is gone
            file.unlink(missing_ok=True)
        entry.rmdir()
        return True
    return False
