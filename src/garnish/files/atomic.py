"""Files and folders that appear whole or not at all, and whose predecessors survive whatever fails.

Everything is written beside its place, synced to the disk and renamed. Nothing is deleted but files of the names that
were written here. Processes and threads that write into one folder do it one after the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from garnish.errors import BundleError, GarnishError, one_line, remedy_of

Content = bytes | Sequence[memoryview]


def write_file(path: Path, data: Content, *, keep: Path | None = None, synced: bool = True) -> None:
    """Write or replace one file; a kill at any moment leaves the former file or the new one.

    Args:
        path: the file.
        data: its bytes, or pieces of them.
        keep: a name in the same folder that the former file gets.
        synced: it lasts through a power cut, which takes milliseconds; False for what can be made again.

    Raises:
        OSError: no space, no permission; the former file is as it was.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.writing")
    with _alone(path.parent):
        try:
            if synced:
                _write(new, data)
            else:
                new.write_bytes(data if isinstance(data, bytes) else b"".join(data))
            if keep is not None and path.exists():
                _link(path, keep)
            os.replace(new, path)  # noqa: PTH105
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        if synced:
            _sync(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write or replace a folder of ``files``; whatever else lies in a folder that is replaced is kept.

    A folder cannot be exchanged in one call everywhere, so the former one is renamed to its :func:`resting_place`
    first; a kill between the two renames leaves it there, where :func:`present` finds it.

    Raises:
        OSError: no space, no permission; the former folder is as it was.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old = path.with_name(f".{path.name}.writing"), resting_place(path)
    with _alone(path.parent):
        if old.is_dir():  # an earlier replacement was cut off
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


@contextlib.contextmanager
def writing(what: object, then: str, error_kind: type[GarnishError] = BundleError) -> Iterator[None]:
    """Turn errors of the system inside a ``with`` block into one line.

    Args:
        what: the place, and what is written there where that does not say it.
        then: goes on after the remedy, which follows from the error ("free some space"): what else to do, and what is
            left of the former.
        error_kind: what is raised for any OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_line(error, 120)
        raise error_kind(f"{what} cannot be written ({reason}); {remedy_of(error)}{then}") from error


def resting_place(path: Path) -> Path:
    """Where the folder that ``path`` replaces stands for the moment between two renames."""
    return path.with_name(f".{path.name}.replaced")


def present(path: Path) -> Path:
    """The folder to read for ``path``: itself, or the former one where a replacement was cut off."""
    path = path.resolve()
    old = resting_place(path)
    return old if not path.exists() and old.is_dir() else path


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder for a ``with`` block; where the file system cannot, nothing is kept out."""
    if os.name != "posix":
        yield
        return
    import fcntl  # a lock on the folder itself leaves no file behind, which that of filelock would in a user's folder

    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _link(path: Path, other: Path) -> None:
    """Give a file a second name, in place of the file that has it; a copy where the file system has no such names."""
    new = other.with_name(f".{other.name}.writing")
    new.unlink(missing_ok=True)
    try:
        new.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, new)
    new.replace(other)


def _write(file: Path, data: Content) -> None:
    with file.open("wb") as opened:
        opened.writelines([data] if isinstance(data, bytes) else data)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(folder: Path, names: Iterable[str]) -> None:
    """Remove a folder that holds nothing but ``names``; raises OSError where it holds more."""
    if folder.is_dir():
        for name in names:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _put_away(old: Path, path: Path, names: Mapping[str, bytes]) -> None:
    """Remove a replaced folder; what it held beside ``names`` moves to the new one."""
    for entry in sorted(old.iterdir()):
        if entry.name not in names and not (path / entry.name).exists():
            entry.rename(path / entry.name)
    _discard(old, names)
