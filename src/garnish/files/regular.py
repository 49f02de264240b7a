"""Opening strangers' files: regular files of a bounded size, never a pipe, a device or a terabyte of holes.

Nothing here needs torch.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, final


class UnfitFile(OSError):
    """Not a regular file, or a larger one than its kind can be, or no name; its text says which, without the path."""


#: Reads of so many bytes are not compared with what is left, which takes longer than they do.
_SMALL = 1 << 16


@final
class _Held(io.BufferedReader):
    """The bytes that a file had when it was opened.

    Decoders ask for as many bytes as a header says, and Python would make room for gigabytes before it finds a few.
    """

    def __init__(self, handle: int, size: int) -> None:
        super().__init__(io.FileIO(handle, "rb"))
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= _SMALL:
            return super().read(size)
        left = max(self._size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def open_regular(file: str | os.PathLike[str], most: int) -> BinaryIO:
    """Open a file for reading; a read of more bytes than it holds makes no room for them.

    Args:
        file: its path; links are followed.
        most: the largest size that its kind of file has, bytes.

    Raises:
        UnfitFile: a folder, pipe, device or socket, or more bytes than ``most``. OSError: it cannot be opened.
    """
    # without waiting: opening a pipe would last until somebody writes to it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(file, flags)
    except ValueError as error:  # a NUL, or a character that no name of a file has
        raise UnfitFile("no file can have this name") from error
    try:
        facts = os.fstat(handle)
        _check(facts, most)
        return _Held(handle, facts.st_size)
    except BaseException:
        os.close(handle)
        raise


def check_regular(file: str | os.PathLike[str], most: int) -> int:
    """The size in bytes of a file that a library is to open by its path; raises as :func:`open_regular`."""
    try:
        facts = Path(file).stat()
    except ValueError as error:
        raise UnfitFile("no file can have this name") from error
    _check(facts, most)
    return facts.st_size


def read_regular(file: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file; raises as :func:`open_regular`."""
    with open_regular(file, most) as stream:
        return stream.read()


def _check(facts: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UnfitFile("it is no regular file")
    if facts.st_size > most:
        raise UnfitFile(f"its {facts.st_size:,} bytes are more than the {most:,} that such a file may have")
