"""The folder of a run: creating it exclusively, and locking it while a process trains. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from garnish.errors import BundleError, OptionError
from garnish.files.atomic import writing
from garnish.files.links import check_links
from garnish.files.locks import locked
from garnish.output import logger

#: Folder of the checkpoint, in that of the run. The process that creates it owns the run's folder.
LAST = "last"
#: The checkpoint, in the folder of the run, and the previous one, which is used if the first is damaged.
STATE = Path(LAST) / "state.safetensors"
EARLIER = Path(LAST) / "earlier.safetensors"
_LOCK = ".lock"
#: Seconds between tries to lock it.
_LOOK = 0.5

_log = logger(__name__)


def new_folder(wanted: Path) -> Path:
    """Take ``wanted`` if it is new or empty, else ``wanted-2``, ``wanted-3`` and so on.

    Processes that start at the same time get different folders: a folder is taken by creating ``FOLDER/last``, which
    succeeds in one process only.

    Raises:
        OptionError: a folder that cannot be created.
    """
    number = 1
    if "\0" in str(wanted):
        raise OptionError(f"out: {str(wanted)!r} is no path; choose another folder")
    if wanted.name in ("", ".."):  # the current folder, whose name the numbers go to, or one around it
        wanted = wanted.resolve()
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        number += 1
        try:
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if not folder.is_dir() or any(folder.iterdir()):
                    continue
            (folder / LAST).mkdir()
        except FileExistsError:  # another process was faster
            continue
        except OSError as error:
            raise OptionError(f"out: {folder} cannot be made ({error.strerror}); choose another folder") from None
        return folder


def is_run(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, damaged or not."""
    return (folder / STATE).is_file() or (folder / EARLIER).is_file()


def check_run(folder: Path) -> None:
    """Raise BundleError if a folder holds no checkpoint, or links that lead out of it.

    The message names the run that the path lies in, if any.
    """
    if is_run(folder):
        check_links(folder)
        return
    if not folder.exists():
        why = "no such folder"
    elif folder.is_dir():
        why = f"holds no checkpoint ({STATE.as_posix()})"
    else:
        why = "is a file"
    around = [above for above in list(folder.parents)[:2] if is_run(above)]
    near = f", {around[0]}" if around else ""
    raise BundleError(f"{folder}: {why}; give the run's folder{near}")


def how_to_go_on(folder: Path | None, *, by_command: bool) -> str:
    """A sentence that says how to resume a stopped run; ``by_command``: its recipe names its data."""
    if folder is None:
        return "nothing was saved, as the run has no folder"
    if not by_command:
        return f"to go on: the same fit(…, resume={str(folder)!r}), with model, data and options as before"
    return f"to go on: garnish train --resume {shlex.quote(str(folder))}, or fit(resume={str(folder)!r})"


def what_is_kept(folder: Path | None) -> str:
    """The end of a message about a run that broke off: where its last checkpoint is; empty without a folder."""
    return "" if folder is None else f"; the last checkpoint is in {folder / LAST}"


@contextlib.contextmanager
def working_in(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Lock a run's folder against other training processes for a ``with`` block; a killed process leaves no lock.

    Args:
        folder: of the run.
        patience: seconds to wait for another process that trains there, which is said.

    Raises:
        OptionError: another process trains there. BundleError: the folder cannot be written to.
    """
    until = time.monotonic() + patience

    def busy(who: str) -> None:
        raise OptionError(f"{folder}: {who} trains in it; wait until it ends, or stop it, then resume")

    with contextlib.ExitStack() as held:
        is_told = False
        with writing(f"{folder}:", ", then resume"):
            while True:
                try:
                    held.enter_context(locked(folder / _LOCK, busy))
                    break
                except OptionError as error:
                    if time.monotonic() >= until:
                        raise
                    if not is_told:
                        is_told = True
                        _log.warning("%s; waiting up to %.0f s", str(error).partition(";")[0], patience)
                time.sleep(_LOOK)
        yield
