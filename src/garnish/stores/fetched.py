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
from typing import IO, TypedDict, final

from filelock import FileLock

from garnish.checking.plain_data import Reading, read_as
from garnish.errors import DataError, OptionError, shown
from garnish.files.atomic import write_file, writing
from garnish.files.path_text import given_path
from garnish.files.regular import read_regular
from garnish.files.strict_json import parse_json
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
#: Seconds that a file without a note counts as being written since its folder changed.
_UNDER_WAY = 600.0
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

        with self.made((str(place), name, version, facts.size), name, facts.size, make) as file:
            yield file

    @contextlib.contextmanager
    def made(self, key: tuple[object, ...], name: str, size: int, make: Callable[[Path], None]) -> Iterator[Path]:
        """A file that ``make`` writes where it is not there, for a ``with`` block, in which it is not removed.

        Args:
            key: what it is kept under.
            name: what it is called at the end.
            size: bytes that it will have, at most.
            make: writes it to a path; the file must appear there whole.

        Raises:
            FullCache: as :meth:`file`. Whatever ``make`` raises.
        """
        entry = self._files / hashlib.sha256(repr(key).encode()).hexdigest()[:40]
        file = entry / _short(name)
        with contextlib.ExitStack() as held:
            opened = self._opened(entry, file)
            if opened is None:
                with FileLock(str(self.folder / "locks" / f"{int(entry.name[:8], 16) % _LOCKS:02}")):
                    opened = self._opened(entry, file)  # by another process meanwhile
                    if opened is None:
                        self._reserve(size)
                        self._make(entry, file, make)
                        opened = self._opened(entry, file)
            if opened is None:
                raise DataError(f"{file}: was removed while it was fetched; let only garnish write into {self.folder}")
            held.enter_context(opened)
            yield file

    def _make(self, entry: Path, file: Path, make: Callable[[Path], None]) -> None:
        with writing(file, f"; or name another folder by {FOLDER}", DataError):
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir()
        try:
            make(file)
            with writing(file, "", DataError):
                told = file.stat()
                note = {"size": told.st_size, "changed": told.st_mtime_ns, "sha256": _digest(file)}
                write_file(_note(entry), json.dumps(note).encode(), synced=False)
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
            _share(opened)
            note = read_as(parse_json(read_regular(_note(entry), _MOST_NOTE)), _Note, "", Reading())
            told = os.fstat(opened.fileno())
            whole = (told.st_size, told.st_mtime_ns) == (note["size"], note["changed"]) and told.st_nlink > 0
            if whole and (entry.name, told.st_mtime_ns) not in self._checked:  # once in each process
                whole = _digest(file) == note["sha256"]
            if whole:
                self._checked.add((entry.name, told.st_mtime_ns))
                os.utime(_note(entry))
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

    def _remove(self, size: int) -> int:
        """Remove the least recently used until a file fits; returns the bytes of those that are left."""
        entries = []
        for entry in os.scandir(self._files):
            held = sum(file.stat().st_size for file in os.scandir(entry) if file.is_file()) if entry.is_dir() else 0
            try:
                used = _note(Path(entry)).stat().st_mtime_ns
            except OSError:
                used = 0 if not entry.is_dir() else int(entry.stat().st_mtime_ns)  # under way, or left by a kill
            entries.append((used, held, Path(entry)))
        left = sum(held for _, held, _ in entries)
        room = max(int(self.most * _LEFT), size) - size if left + size > self.most else self.most
        for _, held, entry in sorted(entries):
            if left <= room:
                break
            if _is_removed(entry):
                left -= held
        if left + size > self.most:
            raise FullCache(f"{self.folder}: {left:,} bytes are in use, and {size:,} more than {self._told_bound()}")
        return left

    def _told_bound(self) -> str:
        return f"the cache's bound of {self.most:,} bytes; raise {GIGABYTES}"

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "most": self.most}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]


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


def _note(entry: Path) -> Path:
    return entry / "note.json"


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _share(opened: IO[bytes]) -> None:
    """Keep a file from being removed until it is closed, if the system has such locks."""
    if os.name == "posix":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(opened.fileno(), fcntl.LOCK_SH)


def _is_removed(entry: Path) -> bool:
    """Remove an entry unless somebody has its file open, or may be writing it; whether it was removed."""
    with contextlib.suppress(OSError):
        if not _note(entry).exists() and time.time() - entry.stat().st_mtime < _UNDER_WAY:
            return False
        for file in entry.iterdir():
            with file.open("rb") as opened:
                if os.name == "posix":
                    import fcntl

                    fcntl.flock(opened.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()  # while it is locked: who opened it and waits sees that it is gone
        entry.rmdir()
        return True
    return False
