"""Processes that look at pictures beside each other; each has one thread, and one picture in memory.

Of a process that dies (a decoder that crashes, no memory left) only the picture that it had is lost, and that is named.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, final

from garnish.doctor.looking import LookingPlan, Notes, crash, look_at
from garnish.errors import GarnishError

if TYPE_CHECKING:  # Windows has no fork server
    from multiprocessing.context import ForkServerContext, SpawnContext

#: Number of a split in the plan, and of a picture there.
Pick = tuple[int, int]
#: Pictures that are handed over at once, and processes that may die before all are stopped.
_CHUNK, _MOST_DEATHS = 8, 10


@dataclass(eq=False)
class _Process:
    process: BaseProcess
    connection: Connection
    picks: deque[Pick] = field(default_factory=deque)  # in work; the first is the one it looks at
    is_ready: bool = False


def looked_at(plan: LookingPlan, picks: Sequence[Pick], jobs: int) -> Iterator[Notes]:
    """The notes of each picture, in no order; all processes have ended when the iterator has, or is closed.

    Args:
        plan: splits and checks; with more than one job both must pickle.
        picks: the pictures.
        jobs: processes; 1: this one.

    Raises:
        GarnishError: processes that do not start, or die again and again.
    """
    if jobs == 1 or len(picks) < 2:
        for dataset, index in picks:
            yield look_at(plan, dataset, index)
        return
    pool = _Pool(plan, picks, min(jobs, -(-len(picks) // _CHUNK)))
    try:
        yield from pool.notes()
    finally:
        pool.stop()


@final
class _Pool:
    def __init__(self, plan: LookingPlan, picks: Sequence[Pick], jobs: int) -> None:
        # a fork server imports torch once, and forks while it has one thread
        self._context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
        if "forkserver" in multiprocessing.get_all_start_methods():
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload([__name__])
        self._plan, self._jobs, self._deaths = plan, jobs, 0
        self._waiting: deque[Pick] = deque(picks)
        self._running: list[_Process] = []

    def notes(self) -> Iterator[Notes]:
        """Those of all pictures."""
        while self._waiting or any(one.picks for one in self._running):
            while self._waiting and len(self._running) < self._jobs:
                self._running.append(self._started())
            for one in self._running:
                if not one.picks and self._waiting:
                    self._hand_over(one)
            for connection in wait([one.connection for one in self._running]):
                one = next(one for one in self._running if one.connection is connection)
                try:
                    noted = one.connection.recv()
                except (EOFError, OSError):
                    yield from self._buried(one)
                    continue
                if noted is None:
                    one.is_ready = True
                    continue
                one.picks.popleft()
                yield noted

    def stop(self) -> None:
        """End all processes: those without work by themselves, the others at once."""
        for one in self._running:
            one.connection.close()
            if one.picks:
                one.process.terminate()
        for one in self._running:
            one.process.join()
            one.process.close()
        self._running.clear()

    def _started(self) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=look_on, args=(self._plan, theirs), name="garnish check", daemon=True)
        process.start()
        theirs.close()
        return _Process(process, ours)

    def _hand_over(self, one: _Process) -> None:
        one.picks.extend(self._waiting.popleft() for _ in range(min(_CHUNK, len(self._waiting))))
        with contextlib.suppress(OSError):  # it is dead already, which the next wait finds out
            one.connection.send(list(one.picks))

    def _buried(self, one: _Process) -> Iterator[Notes]:
        """Take a dead process away; the picture it had gets a note, the others go back into the queue."""
        self._running.remove(one)
        one.connection.close()
        one.process.join()
        code = one.process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
        if not one.is_ready:
            raise GarnishError(
                f"check: a process ended {how} before it began; use --jobs 1 (in a script jobs=1, or call it below"
                " `if __name__ == '__main__':`)"
            )
        self._deaths += 1
        hint = "; most likely the memory was full" if code == -signal.SIGKILL else ""
        had = one.picks.popleft() if one.picks else None
        self._waiting.extendleft(reversed(one.picks))
        if had is None:
            return
        dataset, index = had
        if self._deaths > _MOST_DEATHS:
            file = self._plan.datasets[dataset].picture_file(index)
            raise GarnishError(
                f"check: {self._deaths} processes ended by themselves, the last one {how} at {file}{hint}; use --jobs 1"
            )
        yield Notes(dataset, index, died=f"the process that looked at it ended {how}{hint}")


def look_on(plan: LookingPlan, connection: Connection) -> None:
    """Main function of a process: look at the pictures that are handed over until the connection is closed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process too, which ends this one
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):  # the first process is gone
        connection.send(None)
        while True:
            for dataset, index in connection.recv():
                connection.send_bytes(_pickled(look_at(plan, dataset, index)))


def _pickled(notes: Notes) -> bytes:
    """Notes as bytes, without what a check kept that cannot be sent."""
    try:
        return bytes(ForkingPickler.dumps(notes))
    except Exception:  # pickle raises anything
        for part in list(notes.kept):
            try:
                ForkingPickler.dumps(notes.kept[part])
            except Exception as error:
                notes.crashed[part[0]] = f"what it keeps cannot be sent to another process: {crash(error)}"
                del notes.kept[part]
        return bytes(ForkingPickler.dumps(notes))
