"""A folder of fetched files with a bound: the least recently used go first, those in use stay.

Several processes may share it. A file is kept under its address, name and version, so one that was replaced in its
store is fetched anew. Beside each lies a note of its size, time of change and checksum, written when it is whole: what
has none, or differs from it, is fetched again and never given out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypedDict, final

from filelock import FileLock

from garnish.checking.plain_data import Reading, read_as
from garnish.errors import DataError, OptionError, shown
from garnish.files.atomic import write_file, writing
from garnish.files.path_text import given_path
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json
from garnish.stores.cache_entry import keep_open_file, last_used, note_of, removed_unused
from garnish.stores.facts import PlaceFacts
from garnish.stores.place import Place

#: Names of the environment: the folder, and its bound in 10⁹ bytes.
FOLDER, GIGABYTES = "GARNISH_CACHE", "GARNISH_CACHE_GB"
_USUAL_GB = 20.0
#: Locks that fetches of different files spread over, so that no lock file belongs to a file that may go.
_LOCKS = 64
#: What is left of the bound after files were removed, so that not every fetch removes some.
_LEFT = 0.9
_MOST_NOTE = 1000
#: Files up to so many bytes are compared with their checksum, once in each process; others with size and time alone.
_COMPARED = 64 * 2**20
#: A file may be removed between its making and its opening, where the bound is small; then it is made again.
_MOST_TRIES = 5
#: Longest name that a file keeps; readers go by its end.
_MOST_NAME = 120


class _Note(TypedDict):
    size: int
    changed: int
    sha256: str


class FullCache(DataError):
    """Nothing more can be removed: what is there is in use."""


@final
class FetchedFiles:
    """Fetched files in a folder.

    Args:
        folder: made where there is none; None: ``GARNISH_CACHE``, else ``~/.cache/garnish``.
        most: bytes that they may take together; None: ``GARNISH_CACHE_GB``, else 20·10⁹.

    Raises:
        OptionError: a bound that is no number above 0. DataError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, most: int | None = None) -> None:
        named = os.environ.get(FOLDER) or "~/.cache/garnish"
        self.folder = Path(os.path.abspath(given_path(named if folder is None else folder, FOLDER)))  # noqa: PTH100
        self.most = _usual_bound() if most is None else most
        if self.most <= 0:
            raise OptionError(f"a cache of {self.most:,} bytes holds nothing; give a number above 0")
        self._files = self.folder / "fetched"
        with writing(self.folder, f"; or name another folder by {FOLDER}", DataError):
            self._files.mkdir(parents=True, exist_ok=True)
            (self.folder / "locks").mkdir(exist_ok=True)
        self._checked: set[tuple[str, int]] = set()

    @contextlib.contextmanager
    def file(self, place: Place, name: str, facts: PlaceFacts | None = None) -> Iterator[Path]:
        """A file of a place as one of this machine, for a ``with`` block, in which it is not removed.

        Of a place on this machine it is the file itself.

        Args:
            place: where it lies.
            name: its name there.
            facts: what was listed of it; None: the place is asked.

        Raises:
            FullCache: it does not fit beside what is in use. DataError: there is no such file, or it cannot be fetched.
        """
        if facts is None or place.local is not None:
            facts = place.facts(name)
        if facts is None:
            raise DataError(f"{place}: {shown(name, 120)}: there is no such file; check the name")
        if place.local is not None:
            yield place.local / name
            return
        version = facts.version or f"unknown {os.getpid()} {time.time_ns()}"  # never taken for another
        wanted = facts

        def make(file: Path) -> None:
            found = place.fetch(name, file, most=wanted.size)
            if found.size != wanted.size or (wanted.version and found.version != wanted.version):
                raise DataError(f"{place}: {shown(name, 120)} was replaced since it was listed; try again")

        with self._kept((str(place), name, version, facts.size), name, facts.size, make, "fetching") as file:
            yield file

    @contextlib.contextmanager
    def made(self, key: tuple[object, ...], name: str, make: Callable[[Path], None]) -> Iterator[Path]:
        """A file that ``make`` writes where it is not there, for a ``with`` block, in which it is not removed.

        Args:
            key: what it is kept under.
            name: what it is called at the end.
            make: writes it to a path; the file must appear there whole. It may ask for :meth:`file`.

        Raises:
            FullCache: as :meth:`file`. Whatever ``make`` raises.
        """
        with self._kept(key, name, 0, make, "making") as file:
            yield file

    @contextlib.contextmanager
    def _kept(
        self, key: tuple[object, ...], name: str, size: int, make: Callable[[Path], None], lock: str
    ) -> Iterator[Path]:
        """A file under its key. Who holds a lock of "making" may wait for one of "fetching", never the other way."""
        entry = self._files / hashlib.sha256(repr(key).encode()).hexdigest()[:40]
        file = entry / _short(name)
        opened = self._opened(entry, file)
        for _ in range(_MOST_TRIES):
            if opened is not None:
                break
            with FileLock(str(self.folder / "locks" / f"{lock}-{int(entry.name[:8], 16) % _LOCKS:02}")):
                opened = self._opened(entry, file)  # by another process meanwhile
                if opened is None:
                    self._reserve(size)
                    self._make(entry, file, make)
                    opened = self._opened(entry, file)
                    if opened is not None and (more := os.fstat(opened.fileno()).st_size - size) > 0:
                        self._count(more)
        if opened is None:
            raise DataError(f"{file}: was removed again and again; let only garnish write into {self.folder}")
        with opened:
            yield file

    def _make(self, entry: Path, file: Path, make: Callable[[Path], None]) -> None:
        with writing(file, f"; or name another folder by {FOLDER}", DataError):
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir()
        try:
            make(file)
            with writing(file, "", DataError):
                told = file.stat()
                note = {"size": told.st_size, "changed": told.st_mtime_ns, "sha256": ""}
                if told.st_size <= _COMPARED:
                    note["sha256"] = _digest(file)
                write_file(note_of(entry), json.dumps(note).encode(), synced=False)
        except BaseException:
            shutil.rmtree(entry, ignore_errors=True)
            raise
        self._checked.add((entry.name, told.st_mtime_ns))

    def _opened(self, entry: Path, file: Path) -> IO[bytes] | None:
        """The file, opened with a lock that keeps it; None: it is not there, or not whole. Its use is noted."""
        try:
            opened = file.open("rb")
        except OSError:
            return None
        try:
            keep_open_file(opened)
            note = read_as(parse_json(read_regular(note_of(entry), _MOST_NOTE)), _Note, "", Reading())
            told = os.fstat(opened.fileno())
            whole = (told.st_size, told.st_mtime_ns) == (note["size"], note["changed"]) and told.st_nlink > 0
            if whole and (entry.name, told.st_mtime_ns) not in self._checked:  # once in each process
                whole = note["size"] > _COMPARED or _digest(file) == note["sha256"]
            if whole:
                self._checked.add((entry.name, told.st_mtime_ns))
                os.utime(note_of(entry))
                return opened
        except (OSError, ValueError):
            pass
        opened.close()
        return None

    def _reserve(self, size: int) -> None:
        """Count a file that will be made, and remove others where there is no room for it."""
        if size > self.most:
            raise FullCache(f"a file of {size:,} bytes is larger than {self._told_bound()}")
        counter = self.folder / "bytes"
        with FileLock(str(self.folder / "locks" / "all")), writing(self.folder, "", DataError):
            try:
                known = int(read_regular(counter, 40))
            except (OSError, ValueError):
                known = self.most  # not known; they are counted
            if known + size > self.most:
                known = self._remove(size)
            write_file(counter, str(known + size).encode(), synced=False)

    def _count(self, size: int) -> None:
        """Count bytes that are there already and were not foreseen."""
        counter = self.folder / "bytes"
        with FileLock(str(self.folder / "locks" / "all")), contextlib.suppress(OSError, ValueError):
            write_file(counter, str(int(read_regular(counter, 40)) + size).encode(), synced=False)

    def _remove(self, size: int) -> int:
        """Remove the least recently used until a file fits; returns the bytes of those that are left."""
        entries = []
        for entry in map(Path, os.scandir(self._files)):
            with contextlib.suppress(OSError):  # it is removed meanwhile
                used = last_used(entry)
                entries.append((used, sum(file.stat().st_size for file in entry.iterdir()), entry))
        left = sum(held for _, held, _ in entries)
        room = max(int(self.most * _LEFT), size) - size if left + size > self.most else self.most
        for used, held, entry in sorted(entries):
            if left <= room:
                break
            if removed_unused(entry, used):
                left -= held
        if left + size > self.most:
            raise FullCache(f"{self.folder}: {left:,} bytes are in use, and {size:,} more than {self._told_bound()}")
        return left

    def _told_bound(self) -> str:
        return f"the cache's bound of {self.most:,} bytes; raise {GIGABYTES}"

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "most": self.most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


def _usual_bound() -> int:
    text = os.environ.get(GIGABYTES) or str(_USUAL_GB)
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise OptionError(f"{GIGABYTES}: {shown(text)}; give 10⁹ bytes, a number above 0 such as 50")
    return int(found * 1e9)


def _short(name: str) -> str:
    """The last part of a name, short enough for any file system, its ending kept."""
    last = name.rpartition("/")[2]
    while len(last.encode()) > _MOST_NAME:
        last = last[1:]
    return f"_{last}" if last.startswith(".") or last == "note.json" else last


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
