"""Where a process can be killed: before each change of the files in a folder, counted as they come.

Changes are what the interpreter reports of itself (opening for writing, renaming, linking, removing, making folders),
and syncing. A kill between two of them is all that a kill at any time can come to, but for a write that is cut in two,
which is made by hand.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class KillPoints:
    """Counts the changes in a folder from now on, and sends a signal to this process at one of them.

    Args:
        folder: of which changes are counted, with all folders in it.
        at: number of the change, from 1; 0: none.
        number: the signal.
        torn: leave what was being written cut in two.
    """

    def __init__(self, folder: Path, at: int = 0, number: int = signal.SIGKILL, *, torn: bool = False) -> None:
        self.folder, self.at, self.number, self.torn = str(folder.resolve()), at, number, torn
        self.count = 0
        self._sync = os.fsync
        os.fsync = self._synced  # not reported as the others are
        sys.addaudithook(self._changed)

    def _changed(self, event: str, given: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            self._step(given[0])
        elif event == "open":
            place, mode, flags = given
            if (mode and set(mode) & set("wax+")) or (mode is None and flags & _WRITING):
                self._step(place, appended=bool(mode) and "a" in mode)

    def _step(self, place: object, *, appended: bool = False) -> None:
        if isinstance(place, int) or not str(Path(os.fsdecode(place)).absolute()).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.at:
            if appended and self.torn:
                handle = os.open(os.fsdecode(place), os.O_WRONLY | os.O_APPEND)
                os.write(handle, b"4,0.12")
            os.kill(os.getpid(), self.number)

    def _synced(self, handle: int) -> None:
        self.count += 1
        if self.count == self.at:
            size = os.fstat(handle).st_size
            if self.torn and self.number == signal.SIGKILL and Path(f"/proc/self/fd/{handle}").is_file():
                os.ftruncate(handle, size // 2)
            os.kill(os.getpid(), self.number)
        self._sync(handle)


def main_with_kill(words: list[str], out: Path, at: int, number: int, torn: bool, counted: Path) -> int:
    """Run a command line with a kill at a change in ``out``; without one, note the number of changes. The exit code."""
    from garnish.cli import main

    points = KillPoints(out, at, number, torn=torn)
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    if not at:
        counted.write_text(str(points.count))
    return code
