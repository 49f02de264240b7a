"""A lock for one process at a time, released when the process ends, with a note of who holds it.

The lock itself is the system's (``filelock``), so that a killed process frees it. A file beside the lock file names
the holder and is read only while the lock is held. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypedDict

from filelock import FileLock, Timeout

from garnish.checking.plain_data import Reading, read_as
from garnish.errors import one_line
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json

#: Largest note that is read.
_MOST_BYTES = 4096


class _Note(TypedDict):
    pid: int
    host: str
    since: str


@contextlib.contextmanager
def locked(file: Path, busy: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for a ``with`` block.

    Args:
        file: the lock file in an existing folder; it is created and stays.
        busy: called once if another process (or another thread of this one) holds the lock, with who that is:
            "process 12 on host since 2031-05-01 10:00:00". It may raise; otherwise this waits for the lock.

    Raises:
        OSError: the file cannot be created.
    """
    if file.is_symlink():  # a stranger's link would have another file of yours emptied
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
    lock, by = FileLock(str(file), thread_local=False), _by(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        busy(holder(file))
        lock.acquire()
    try:
        with contextlib.suppress(OSError):  # the note only informs others, so it may be missing
            by.unlink(missing_ok=True)  # whatever else it is: a link would be written through, a pipe waited for
            by.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}), "utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            by.unlink(missing_ok=True)
        lock.release()


def holder(file: Path) -> str:
    """Who holds the lock on ``file``, from its note; "another process" if there is none."""
    try:
        told = read_as(parse_json(read_regular(_by(file), _MOST_BYTES)), _Note, "", Reading())
    except (OSError, ValueError):
        return "another process"
    return one_line(f"process {told['pid']} on {told['host']} since {told['since']}", 200)


def _by(file: Path) -> Path:
    return file.with_name(f"{file.name}.by")


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
