"""One process at a time: a lock that goes with the process that holds it, and who that is.

The lock itself is the system's (``filelock``), so that a killed process frees it. Beside the lock file stands who
holds it, which is read only while somebody does. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from garnish.errors import one_line


@contextlib.contextmanager
def locked(file: Path, busy: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for a ``with`` block.

    Args:
        file: what is locked; it is created and stays, in a folder that exists.
        busy: called once where another process (or another thread of this one) holds the lock, with who that is:
            "process 12 on host since 2031-05-01 10:00:00". It raises, or the lock is waited for.

    Raises:
        OSError: the file cannot be made.
    """
    lock, by = FileLock(str(file), thread_local=False), _by(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        busy(holder(file))
        lock.acquire()
    try:
        with contextlib.suppress(OSError):  # who it is helps others, and nothing hangs on it
            by.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}), "utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            by.unlink(missing_ok=True)
        lock.release()


def holder(file: Path) -> str:
    """Who holds the lock on ``file``, as it told itself; "another process" where it could not."""
    try:
        told = json.loads(_by(file).read_text("utf-8"))
        return one_line(f"process {int(told['pid'])} on {told['host']} since {told['since']}", 200)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def _by(file: Path) -> Path:
    return file.with_name(f"{file.name}.by")


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
