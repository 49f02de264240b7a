"""Atomic writes of files and folders: they appear complete or not at all, and the old version survives any failure.

Everything is written under another name in the same folder, synced to the disk and renamed. Only files with the names
that are written here are ever deleted. Processes and threads that write into the same folder take turns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar, final

from garnish.errors import BundleError, GarnishError, one_line, remedy_of

Content = bytes | Sequence[memoryview]
T = TypeVar("T")

#: How often a folder is read anew that is replaced while it is read.
_MOST_READS = 10


def write_file(path: Path, data: Content, *, keep: Path | None = None, synced: bool = True) -> None:
    """Write or replace one file; a kill at any moment leaves the old file or the new one.

    Args:
        path: the file.
        data: its bytes, or pieces of them.
        keep: a path in the same folder at which the old file is kept.
        synced: survive a power cut, which takes milliseconds; False for data that can be computed again.

    Raises:
        OSError: no space, no permission; the old file is unchanged.
    """
    path = path.parent.resolve() / path.name  # a link that a stranger left there is replaced, never written through
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.writing")
    with alone(path.parent):
        try:
            _write(new, data, synced=synced)
            if keep is not None and path.exists():
                _link(path, keep)
            os.replace(new, path)  # noqa: PTH105
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        if synced:
            _sync(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write or replace a folder of ``files``; other files in a folder that is replaced are kept.

    Not every system can swap folders in one call, so the old one is renamed to its :func:`resting_place` first; a
    kill between the two renames leaves it there, where :func:`present` finds it.

    Raises:
        OSError: no space, no permission; the old folder is unchanged.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old = path.with_name(f".{path.name}.writing"), resting_place(path)
    with alone(path.parent):
        if old.is_dir():  # an earlier replacement was interrupted
            if path.exists():
                _put_away(old, path, files)
            else:
                old.rename(path)
        try:
            _discard(new, files)
            new.mkdir()
            for name, data in files.items():
                _write(new / name, data)
            _sync(new)
            if path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.is_dir():
                    old.rename(path)
                raise
        except BaseException:
            _discard(new, files)
            raise
        _sync(path.parent)
        if old.is_dir():
            _put_away(old, path, files)


@final
class GrowingFile:
    """A file that is written bit by bit, for minutes, and appears under its name when it is finished.

    Until then it has a hidden name beside it, which a lock keeps from other writers; other files may be written into
    the same folder meanwhile. What a killed writer left there is replaced by the next one.

    Args:
        path: the file; what is there stays until :meth:`finish`.

    Raises:
        OSError: it cannot be written, or somebody else is writing it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.parent.resolve() / path.name
        self._new = self._path.with_name(f".{path.name}.growing")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self._path.parent):
            if self._new.is_file() and not self._new.is_symlink():
                with self._new.open("rb") as left:
                    hold(left.fileno())
            self._new.unlink(missing_ok=True)
            self.stream: BinaryIO = self._new.open("xb")
            hold(self.stream.fileno())

    def finish(self) -> None:
        """Give the file its name; on failure the old one is unchanged and the new one gone."""
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())
            with alone(self._path.parent):
                os.replace(self._new, self._path)  # noqa: PTH105
                self.stream.close()
                _sync(self._path.parent)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written; nothing after :meth:`finish` or a second time."""
        if not self.stream.closed:
            self._new.unlink(missing_ok=True)  # before its lock goes with the stream
            with contextlib.suppress(OSError):  # what is flushed now need not find space
                self.stream.close()


@contextlib.contextmanager
def writing(what: object, then: str, error_kind: type[GarnishError] = BundleError) -> Iterator[None]:
    """Turn any OSError inside a ``with`` block into an error of one line.

    Args:
        what: the path, and what is written there if the path does not show it.
        then: text after the remedy, which depends on the error ("free some space"): what else to do, and what is left
            of the old version.
        error_kind: class of the error that is raised.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_line(error, 120)
        raise error_kind(f"{what} cannot be written ({reason}); {remedy_of(error)}{then}") from error


def resting_place(path: Path) -> Path:
    """Temporary path of the folder that ``path`` replaces, between the two renames."""
    return path.with_name(f".{path.name}.replaced")


def present(path: Path) -> Path:
    """The folder to read for ``path``: itself, or the old one if a replacement was interrupted."""
    path = path.resolve()
    old = resting_place(path)
    return old if not path.exists() and old.is_dir() else path


def read_present(path: Path, read: Callable[[Path], T]) -> T:
    """What ``read`` finds in the folder of :func:`present`; it reads again where the folder was replaced meanwhile.

    Raises:
        GarnishError, OSError: whatever ``read`` raises of a folder that stayed.
    """
    for _ in range(_MOST_READS - 1):
        there, seen = present(path), _identity(path)
        try:
            return read(there)
        except (GarnishError, OSError):
            if _identity(path) == seen:
                raise
    return read(present(path))


def _identity(path: Path) -> tuple[int, ...] | None:
    """What differs once the folder of :func:`present` was replaced."""
    try:
        facts = present(path).stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_ctime_ns


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder against other writers for a ``with`` block; does nothing if the system has no such locks."""
    if os.name != "posix":
        yield
        return
    import fcntl  # locking the folder itself leaves no lock file in a user's folder, as filelock would

    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def hold(handle: int) -> None:
    """Lock an open file or folder until it is closed, if the system has such locks; raises OSError where it is."""
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(errno.EBUSY, "somebody else is writing it") from error
    except OSError:  # a file system without locks
        return


def _link(path: Path, other: Path) -> None:
    """Hard-link a file to ``other``, replacing what is there; copy it if the file system has no hard links."""
    new = other.with_name(f".{other.name}.writing")
    new.unlink(missing_ok=True)
    try:
        new.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, new)
    new.replace(other)
    new.unlink(missing_ok=True)  # it stays where both are links to one file already, as after a kill


def _write(file: Path, data: Content, *, synced: bool = True) -> None:
    file.unlink(missing_ok=True)  # what a kill left, or a link that a stranger put there
    with file.open("xb") as opened:
        opened.writelines([data] if isinstance(data, bytes) else data)
        opened.flush()
        if synced:
            os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    """Sync a folder, so that renames in it survive a power cut, if the system supports it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(folder: Path, names: Iterable[str]) -> None:
    """Remove a folder that contains only files of ``names``; raises OSError if it contains more. A link goes alone."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        for name in names:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _put_away(old: Path, path: Path, names: Mapping[str, bytes]) -> None:
    """Remove a replaced folder; its other files than ``names`` move to the new one."""
    for entry in sorted(old.iterdir()):
        if entry.name not in names and not (path / entry.name).exists():
            entry.rename(path / entry.name)
    _discard(old, names)
