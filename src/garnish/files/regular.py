"""Opening strangers' files: regular files of a bounded size, never a pipe, a device or a terabyte of holes.

Nothing here needs torch.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class UnfitFile(OSError):
    """Not a regular file, or a larger one than its kind can be; its text says which, without the path."""


def open_regular(file: str | os.PathLike[str], most: int) -> BinaryIO:
    """Open a file for reading.

    Args:
        file: its path; links are followed.
        most: the largest size that its kind of file has, bytes.

    Raises:
        UnfitFile: a folder, pipe, device or socket, or more bytes than ``most``. OSError: it cannot be opened.
    """
    # without waiting: opening a pipe would last until somebody writes to it
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(os.fstat(handle), most)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(file: str | os.PathLike[str], most: int) -> int:
    """The size in bytes of a file that a library is to open by its path; raises as :func:`open_regular`."""
    facts = Path(file).stat()
    _check(facts, most)
    return facts.st_size


def read_regular(file: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file; raises as :func:`open_regular`."""
    with open_regular(file, most) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise UnfitFile(f"it grows beyond {most:,} bytes")
    return data


def _check(facts: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UnfitFile("it is no regular file")
    if facts.st_size > most:
        raise UnfitFile(f"its {facts.st_size:,} bytes are more than the {most:,} that such a file may have")
