"""Bytes as a file, for libraries that read paths alone: in memory where the system can, for nobody else to write to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def bytes_as_file(data: bytes) -> Iterator[str]:
    """A path with these bytes for a ``with`` block; nothing of it is left afterwards.

    On Linux it is in memory, and no folder need be writable; elsewhere it lies in a folder of its own, which others
    cannot enter.
    """
    with ExitStack() as held:
        try:
            handle = os.memfd_create("garnish")  # of Linux
            held.callback(os.close, handle)
            with os.fdopen(handle, "wb", closefd=False) as opened:
                opened.write(data)
            path = f"/proc/self/fd/{handle}"
        except (AttributeError, OSError):
            folder = held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            path = str(Path(folder) / "data")
            Path(path).write_bytes(data)
        yield path
