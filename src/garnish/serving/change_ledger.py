"""``ChangeLedger``: the one place of a served application that knows every change of bundles, and who has made it.

Replicas follow it: each asks for what comes after the changes that it has applied, and so says which those are. Whoever
changes a bundle has the turn while it does, so changes have one order; it waits until all replicas have followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from garnish.bundles.bundle_json import DESCRIPTION
from garnish.files.atomic import write_file
from garnish.output import logger
from garnish.serving.change_log import BundleChange, ChangeLog, NumberedChange
from garnish.serving.upload_folder import UploadFolder

_log = logger(__name__)

#: Seconds of a turn, after which another may have it; that a replica has to show that it lives.
_TURN_SECONDS, _LOOK_SECONDS = 120.0, 5.0
#: What the log is kept in, beside the uploads.
_FILE = ".changes.json"


@final
@dataclass(frozen=True)
class News:
    """What a follower has to do.

    Attributes:
        changes: in order, each with the files of its upload.
        last: the number up to which the follower is, once it has applied them.
        asked: a number that grows when somebody wants the metrics of all replicas.
    """

    changes: list[tuple[NumberedChange, Mapping[str, bytes]]]
    last: int
    asked: int


@final
@dataclass(frozen=True)
class _Turn:
    who: str
    replica: str
    end: float


@final
@dataclass(eq=False)
class _Replica:
    actor: Any
    applied: int
    told: int = 0
    metrics: str = ""


@final
class ChangeLedger:
    """A deployment of Ray Serve, of one replica that lives as long as the application.

    Args:
        named: names of the bundles that the start names.
        start: of the application, another one each time it is started: the log is of this start, uploads may be older.
        uploads: where uploads stay; None: in a private folder that goes with the application.
        most: bytes of an upload.
    """

    def __init__(self, named: list[str], start: str, uploads: str | None, most: int) -> None:
        self._start, self._is_private = start, uploads is None
        self._folder = Path(uploads or Path(tempfile.gettempdir()) / f"garnish-uploads-{start}")
        self._log, self._uploads = ChangeLog(named), UploadFolder(self._folder, most)
        self._read()
        self._replicas: dict[str, _Replica] = {}
        self._moved = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._turn: _Turn | None = None
        self._asked = 0

    # ---- changing -------------------------------------------------------------------------------------------------

    async def turn(self, who: str, replica: str, seconds: float) -> bool:
        """Give the turn to a change; False: others had it for all of so many seconds.

        Args:
            who: a name for this change that no other has.
            replica: that makes it.
            seconds: to wait.
        """
        end = time.monotonic() + seconds
        while True:
            async with self._moved:
                if self._turn is None or self._turn.end < time.monotonic() or self._turn.replica not in self._replicas:
                    self._turn = _Turn(who, replica, time.monotonic() + _TURN_SECONDS)
                    return True
                if time.monotonic() > end:
                    return False
                await self._wait(1.0)
                holder = None if self._turn is None else self._turn.replica
            if holder is not None:
                await self._look_for(holder)

    async def give_up(self, who: str) -> None:
        """End a turn in which nothing was changed."""
        async with self._moved:
            if self._turn is not None and self._turn.who == who:
                self._turn = None
                self._moved.notify_all()

    async def commit(
        self, who: str, replica: str, change: BundleChange, files: Mapping[str, bytes] | None
    ) -> int | None:
        """Keep a change that a replica has made, and end its turn; returns its number. None: it has no turn any more.

        Args:
            who: as :meth:`turn` was told.
            replica: that has made it, being up to date before.
            change: what it is.
            files: of an upload.
        """
        async with self._writing:
            if self._turn is None or self._turn.who != who:
                return None
            if files is not None:
                change = BundleChange(change.kind, change.name, mark=_mark(files[DESCRIPTION]))
            await asyncio.to_thread(self._keep, change, files)
            number = self._log.add(change)
            await asyncio.to_thread(self._write)
            if (known := self._replicas.get(replica)) is not None:
                known.applied = number
        async with self._moved:
            self._turn = None
            self._moved.notify_all()
        return number

    async def confirmed(self, number: int, seconds: float) -> list[str]:
        """Wait until every replica that lives has applied a change; returns those that have not by then."""
        end = time.monotonic() + seconds
        while behind := [name for name, one in self._replicas.items() if one.applied < number]:
            if time.monotonic() > end:
                return behind
            async with self._moved:
                waits = any(one.applied < number for one in self._replicas.values())
                has_moved = not waits or await self._wait(0.5)
            for name in [] if has_moved else behind:
                await self._look_for(name)
        async with self._writing:
            self._log.forget(min((one.applied for one in self._replicas.values()), default=0))
        return []

    # ---- following ------------------------------------------------------------------------------------------------

    async def after(self, replica: str, actor: Any, number: int, asked: int, seconds: float) -> News:
        """What comes after a number, which the replica has applied everything up to; waits for it.

        Args:
            replica: who asks.
            actor: its own handle, by which it is seen whether it lives.
            number: that it has applied.
            asked: of its last news.
            seconds: to wait at most; then there may be no news.
        """
        known = self._replicas.setdefault(replica, _Replica(actor, number))
        known.applied = max(number, known.applied)
        end = time.monotonic() + seconds
        async with self._moved:
            self._moved.notify_all()
            while self._log.last <= number and self._asked <= asked and time.monotonic() < end:
                await self._wait(end - time.monotonic())
        async with self._writing:
            changes = [(one, await asyncio.to_thread(self._files, one.change)) for one in self._log.after(number)]
            return News(changes, self._log.last, self._asked)

    async def _wait(self, seconds: float) -> bool:
        """Wait for a notice while holding the condition; whether there was one."""
        try:
            await asyncio.wait_for(self._moved.wait(), max(0.01, seconds))
        except TimeoutError:
            return False
        return True

    async def _look_for(self, name: str) -> None:
        """Forget a replica that has died."""
        from ray.exceptions import ActorDiedError

        known = self._replicas.get(name)
        if known is None:
            return
        try:
            await asyncio.wait_for(known.actor.__ray_ready__.remote(), _LOOK_SECONDS)
        except ActorDiedError:
            self._replicas.pop(name, None)
            _log.warning("replica %s has died; nobody waits for it", name)
        except Exception as error:
            _log.warning("replica %s does not answer (%s)", name, type(error).__name__)

    # ---- metrics --------------------------------------------------------------------------------------------------

    async def report(self, replica: str, asked: int, text: str) -> None:
        """Metrics of a replica, which :attr:`News.asked` wanted."""
        if (known := self._replicas.get(replica)) is not None:
            known.told, known.metrics = asked, text
            async with self._moved:
                self._moved.notify_all()

    async def metrics(self, seconds: float) -> dict[str, str]:
        """Replica → its metrics of now, of all that tell them within so many seconds."""
        self._asked += 1
        wanted, end = self._asked, time.monotonic() + seconds
        async with self._moved:
            self._moved.notify_all()
            while any(one.told < wanted for one in self._replicas.values()) and time.monotonic() < end:
                await self._wait(end - time.monotonic())
        silent = [name for name, one in self._replicas.items() if one.told < wanted]
        for name in silent:
            await self._look_for(name)
        return {name: one.metrics for name, one in self._replicas.items() if one.told >= wanted}

    # ---- keeping --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """What was kept by a ledger of this start that died; and uploads that are not in its log."""
        try:
            facts = json.loads((self._folder / _FILE).read_bytes())
            if facts["start"] == self._start:
                self._log.read(facts)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s: is damaged (%s); the uploads beside it are served", self._folder / _FILE, error)
        there = {name: _mark((folder / DESCRIPTION).read_bytes()) for name, folder in self._uploads.bundles().items()}
        for name in self._log.uploads().keys() - there.keys():
            self._log.add(BundleChange("remove", name))
        for name, mark in there.items():
            if self._log.uploads().get(name) != mark:
                self._log.add(BundleChange("upload", name, mark=mark))
        self._write()

    def _keep(self, change: BundleChange, files: Mapping[str, bytes] | None) -> None:
        if files is not None:
            self._uploads.write(change.name, self._uploads.checked(files))
        elif change.name in self._log.uploads():
            self._uploads.remove(change.name)

    def _write(self) -> None:
        write_file(self._folder / _FILE, json.dumps({"start": self._start, **self._log.facts()}).encode())

    def _files(self, change: BundleChange) -> Mapping[str, bytes]:
        if change.kind != "upload":
            return {}
        folder = self._uploads.bundles()[change.name]
        return {entry.name: entry.read_bytes() for entry in folder.iterdir() if not entry.name.startswith(".")}

    def __del__(self) -> None:
        """Serve calls it when the application ends, not when the process is killed."""
        if getattr(self, "_is_private", False):
            shutil.rmtree(self._folder, ignore_errors=True)


def _mark(description: bytes) -> str:
    return hashlib.sha256(description).hexdigest()
