"""A folder that is filled for minutes, and appears under its name when it is complete."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from garnish.errors import GarnishError
from garnish.files.atomic import alone, hold, writing
from garnish.output import logger

_log = logger(__name__)


@contextlib.contextmanager
def growing_folder(path: Path, error_kind: type[GarnishError]) -> Iterator[Path]:
    """A folder to fill within a ``with`` block; at its end it is renamed to ``path``, on an error it is removed.

    Until then it lies in a hidden folder beside it, ``.NAME.growing``, which has a lock. What a killed writer left
    there has none; it is removed, which is logged.

    Args:
        path: the folder, which does not exist; its parents are made.
        error_kind: class of the errors.

    Raises:
        error_kind: it cannot be written, or somebody else is writing it; nothing is left behind.
    """
    new = path.parent.resolve() / f".{path.name}.growing"
    with writing(path, " or choose another folder", error_kind):
        new.parent.mkdir(parents=True, exist_ok=True)
        with alone(new.parent):
            _remove_stale(new)
            new.mkdir()
            handle = _locked(new)
    whole = new / path.name  # in it, since who writes files into a folder locks that
    try:
        with writing(path, "", error_kind):
            whole.mkdir()
        yield whole
        with writing(path, "", error_kind):
            whole.rename(path)  # which replaces nothing but an empty folder
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _remove_stale(new: Path) -> None:
    """Remove what a killed writer left; raises OSError if somebody is writing there, or what is there is no folder."""
    if not os.path.lexists(new):
        return
    if new.is_symlink() or not new.is_dir():
        raise OSError(errno.EEXIST, f"{new.name} is in the way, which no interrupted writer left; move it away")
    handle = _locked(new)
    if handle is None:
        raise OSError(errno.EEXIST, f"{new.name} was left by an interrupted writer, or is being written; remove it")
    try:
        _log.warning("%s: left by an interrupted writer, removed", new)
        shutil.rmtree(new)
    finally:
        os.close(handle)


def _locked(folder: Path) -> int | None:
    """A lock on a folder, which ends with the process or with its handle; None: the system has no such locks."""
    if os.name != "posix":
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        hold(handle)
    except OSError:
        os.close(handle)
        raise
    return handle
