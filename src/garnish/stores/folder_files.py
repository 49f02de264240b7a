"""The files of a place that is a folder of this machine, or is mounted on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import final

from garnish.errors import DataError, one_line
from garnish.files.atomic import GrowingFile, write_file, writing
from garnish.files.regular import open_regular
from garnish.stores.facts import PlaceFacts

#: Largest file; none is refused for its size here.
_ANY_SIZE = 2**63 - 1


@final
class FolderFiles:
    """Files below a folder, by the file system itself. Names are checked already.

    Args:
        root: the folder, which need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def below(self, folder: str) -> Iterator[tuple[str, PlaceFacts]]:
        """Name and facts of all files below a folder of it, which need not exist; links to folders are not followed."""
        top = self.root / folder
        for here, inner, names in os.walk(top):
            inner.sort()
            for name in sorted(names):
                file = Path(here, name)
                if (facts := self._facts(file)) is not None:
                    yield file.relative_to(self.root).as_posix(), facts

    def facts(self, name: str) -> PlaceFacts | None:
        """Of a regular file; None: there is none."""
        return self._facts(self.root / name)

    def part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes from ``start`` to before ``stop``; fewer where the file ends.

        Raises:
            DataError: it cannot be read.
        """
        file = self.root / name
        try:
            with open_regular(file, _ANY_SIZE) as opened:
                opened.seek(start)
                return opened.read(stop - start)
        except OSError as error:
            raise _unread(file, error) from error

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file: see :func:`garnish.files.atomic.write_file`."""
        file = self.root / name
        with writing(file, "", DataError):
            write_file(file, data)

    def send(self, file: Path, name: str) -> None:
        """Copy a file of this machine; it appears when it is whole."""
        to = self.root / name
        try:
            source = open_regular(file, _ANY_SIZE)
        except OSError as error:
            raise _unread(file, error) from error
        with source, writing(to, "", DataError):
            made = GrowingFile(to)
            try:
                shutil.copyfileobj(source, made.stream, 1 << 20)
            except BaseException:
                made.discard()
                raise
            made.finish()

    def remove(self, name: str) -> None:
        """Remove a file; nothing where there is none."""
        file = self.root / name
        with writing(file, "", DataError):
            file.unlink(missing_ok=True)

    def _facts(self, file: Path) -> PlaceFacts | None:
        try:
            found = file.stat()
        except OSError:
            return None
        if not file.is_file():
            return None
        return PlaceFacts(found.st_size, f"{found.st_mtime_ns}-{found.st_ino}")


def _unread(file: Path, error: OSError) -> DataError:
    reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or one_line(error, 120)
    return DataError(f"{file}: cannot be read ({reason}); check the path and its rights")
