"""``Place``: a folder of this machine, or a prefix of an object store, with the same few verbs for both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from garnish.errors import DataError, OptionError, shown
from garnish.files.atomic import GrowingFile, writing
from garnish.files.path_text import given_path
from garnish.stores.address_text import checked_address, checked_name, is_address
from garnish.stores.facts import PlaceFacts, fixed_part, name_filter
from garnish.stores.folder_files import FolderFiles
from garnish.stores.remote_files import RemoteFiles, check_protocol
from garnish.stores.retrying import Patience, Retrying

__all__ = ["Place", "PlaceFacts", "is_address"]

#: Files that are listed; more are refused, before the memory is full of names.
MOST_NAMES = 5_000_000
#: Bytes that are asked for in one request.
_PART = 16 * 2**20


@final
class Place:
    """Where files lie: list, read, write, fetch and send them by relative names with ``/``.

    A write appears whole or not at all. A request that fails, and may pass (a network's error, throttling, a fault of
    the server), is tried again within :class:`Patience`; the first time is logged, all are counted. It can be pickled;
    each process opens connections of its own, with the credentials of its environment.

    Args:
        address: as it is shown.
        files: does it.
        retrying: of a store.
        local: the folder, where it is one of this machine.
    """

    def __init__(
        self, address: str, files: FolderFiles | RemoteFiles, retrying: Retrying, local: Path | None = None
    ) -> None:
        self._address, self._files, self._retrying, self.local = address, files, retrying, local

    @classmethod
    def of(cls, text: str | os.PathLike[str], *, patience: Patience | None = None) -> Place:
        """The place of an address (``s3://bucket/prefix``, ``gs://…``, ``file:///…``, ``memory://…``) or of a path.

        Nothing is asked of a network, and a folder need not exist.

        Args:
            text: the address or the path.
            patience: how often failed requests are tried.

        Raises:
            OptionError: a protocol that is not known, or whose package is not installed; credentials in the address.
        """
        if not is_address(text):
            if isinstance(text, str) and "://" in text:
                checked_address(text)
            path = given_path(text, "a place")
            return cls(str(path), FolderFiles(Path(os.path.abspath(path))), Retrying(str(path)), path)  # noqa: PTH100
        scheme, rest = checked_address(os.fspath(text))
        if scheme in ("file", "local"):
            if not rest.startswith("/"):
                raise OptionError(f"{shown(text, 120)}: names another machine; write file:///folder, or the path")
            path = given_path(rest, "a place")
            return cls(str(path), FolderFiles(path), Retrying(str(path)), path)
        check_protocol(scheme)
        address = f"{scheme}://{rest}"
        retrying = Retrying(address, patience)
        return cls(address, RemoteFiles(scheme, address, retrying), retrying)

    @classmethod
    def of_file(cls, text: str | os.PathLike[str], *, patience: Patience | None = None) -> tuple[Place, str]:
        """The place that holds a file, and its name there, of the file's address or path; raises as :meth:`of`."""
        whole = os.fspath(text)
        folder, slash, name = whole.rpartition("/")
        if not is_address(text):
            return cls.of(folder or (slash or "."), patience=patience), name
        if folder.endswith("/") and not whole.startswith("memory://"):
            raise OptionError(f"{shown(whole, 120)}: names no file; write s3://bucket/name")
        return cls.of(folder if not folder.endswith(":/") else f"{folder}/", patience=patience), name

    @property
    def retries(self) -> int:
        """Requests that were tried again, of this place and those below it, in this process."""
        return self._retrying.count

    def __truediv__(self, name: str) -> Place:
        """The place below it; raises OptionError for a name that leaves it."""
        checked_name(name, self)
        address = f"{self._address.rstrip('/')}/{name}"
        if isinstance(self._files, FolderFiles):
            local = None if self.local is None else self.local / name
            return Place(address, FolderFiles(self._files.root / name), self._retrying, local)
        return Place(address, self._files.deeper(address), self._retrying)

    def __str__(self) -> str:
        return self._address

    def __repr__(self) -> str:
        return f"Place({self._address!r})"

    def names(self, pattern: str = "**", *, most: int = MOST_NAMES) -> list[str]:
        """The sorted names of :meth:`listed`."""
        return list(self.listed(pattern, most=most))

    def listed(self, pattern: str = "**", *, most: int = MOST_NAMES) -> dict[str, PlaceFacts]:
        """Names of files that fit a pattern, sorted, with what is known of them; empty where there is nothing.

        Args:
            pattern: ``*``, ``?`` and ``[…]`` within a part, ``**`` for any folders; hidden names only where a part of
                it begins with a dot.
            most: files that are looked at.

        Raises:
            DataError: more files; it cannot be listed.
        """
        checked_name(pattern, self)
        fits, found = name_filter(pattern), {}
        for number, (name, facts) in enumerate(self._files.below(fixed_part(pattern))):
            if number >= most:
                raise DataError(f"{self}: holds more than {most:,} files; name a folder of it")
            if fits(name):
                found[checked_name(name, self)] = facts
        return dict(sorted(found.items()))

    def facts(self, name: str) -> PlaceFacts | None:
        """What is known of a file; None: there is none."""
        return self._files.facts(checked_name(name, self))

    def read(self, name: str, *, most: int) -> bytes:
        """A whole file.

        Raises:
            DataError: there is none, it has more than ``most`` bytes, or it cannot be read.
        """
        size = self._sized(name, most).size
        data = self._files.part(name, 0, size)
        if len(data) != size:
            raise self._changed(name)
        return data

    def read_part(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to before ``stop``.

        Raises:
            DataError: the file has fewer, there is none, or it cannot be read. OptionError: no such range.
        """
        if not 0 <= start <= stop:
            raise OptionError(f"{self}: {name}: bytes {start} to {stop} are no range; give 0 <= start <= stop")
        data = self._files.part(checked_name(name, self), start, stop)
        if len(data) != stop - start:
            raise DataError(f"{self}: {name} ends before byte {stop:,}; it is cut short, or was replaced")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file: it appears whole or not at all.

        Raises:
            DataError: it cannot be written; the old file is unchanged.
        """
        self._files.write(checked_name(name, self), data)

    def fetch(self, name: str, file: Path, *, most: int = 2**50) -> PlaceFacts:
        """Copy a file to one of this machine, which appears when it is whole and of the size that was stated.

        Args:
            name: of the file here.
            file: where to; its folder is made, and what is there is replaced.
            most: bytes that it may have.

        Returns:
            What was known of it when it was fetched.

        Raises:
            DataError: there is none, it is larger, it changed meanwhile, or it cannot be read or written.
        """
        facts = self._sized(name, most)
        with writing(file, "", DataError):
            made = GrowingFile(file)
            try:
                for start in range(0, facts.size, _PART):
                    made.stream.write(self._files.part(name, start, min(start + _PART, facts.size)))
                if made.stream.tell() != facts.size or (facts.size > _PART and self.facts(name) != facts):
                    raise self._changed(name)
            except BaseException:
                made.discard()
                raise
            made.finish()
        return facts

    def send(self, file: Path, name: str) -> None:
        """Copy a file of this machine here: it appears whole or not at all.

        Raises:
            DataError: it cannot be read or written; the old file is unchanged.
        """
        self._files.send(file, checked_name(name, self))

    def remove(self, name: str) -> None:
        """Remove a file; nothing where there is none. Raises DataError where that is not allowed."""
        self._files.remove(checked_name(name, self))

    def _sized(self, name: str, most: int) -> PlaceFacts:
        facts = self.facts(name)
        if facts is None:
            raise DataError(f"{self}: {shown(name, 120)}: there is no such file; check the name")
        if facts.size > most:
            raise DataError(
                f"{self}: {shown(name, 120)} has {facts.size:,} bytes, more than the {most:,} that are read"
            )
        return facts

    def _changed(self, name: str) -> DataError:
        return DataError(f"{self}: {shown(name, 120)} was replaced while it was read; try again")
