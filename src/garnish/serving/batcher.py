"""``Batcher``: rows of many requests wait in one bounded queue, and one thread puts those of one key into passes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, final

from garnish.errors import GarnishError, one_line
from garnish.output import logger
from garnish.serving.asked import Ticket
from garnish.serving.engine import Engine, Outcome, Row
from garnish.serving.refusals import Abandoned, Busy
from garnish.serving.waiting_rows import Waiting, WaitingRows

_log = logger(__name__)

#: About the bytes in float32 of the pictures and outputs of a pass of several rows.
_MOST_BYTES = 2**30
#: Of the times that rows took lately, the share that the last pass has.
_NEWEST = 0.2
#: Seconds, before any pass has told how long a row takes; the longest that somebody is told to wait.
_FIRST_GUESS, _LONGEST_WAIT = 1.0, 60

#: Why a row went into no pass: ``full``: never accepted; ``late``: its deadline passed; ``gone``: who asked has gone.
Drop = Literal["full", "late", "gone"]
_WHYS: tuple[Drop, ...] = ("full", "late", "gone")


class PassObserver(Protocol):
    """Who is told of passes, by the thread that runs them, and of rows that never come to one, by any thread."""

    def passed(self, rows: int, seconds: float) -> None:
        """A pass of so many rows has ended."""

    def dropped(self, why: Drop) -> None:
        """A row, or a request, was dropped."""


@final
@dataclass(frozen=True)
class BatchCounts:
    """What a batcher has done.

    Attributes:
        queued: rows that wait.
        passes: that ended.
        rows: in them.
        seconds: that they took.
        dropped: why → how many never came to a pass.
    """

    queued: int
    passes: int
    rows: int
    seconds: float
    dropped: Mapping[Drop, int]


@final
class Batcher:
    """Runs rows in passes of one engine.

    A pass takes the row whose turn it is and what else waits with its key, without waiting for more: under load passes
    fill by themselves. Requests take turns, so one of many windows holds up nobody.

    Args:
        engine: runs passes; by one thread of the batcher's own.
        queue: requests that may wait, beside those whose rows a pass runs.
        batch: most rows of a pass, of any size; None: as many as the engine says are best, by their size.
    """

    def __init__(self, engine: Engine, *, queue: int = 64, batch: int | None = None) -> None:
        self._engine, self._queue = engine, queue
        self.batch = engine.batch if batch is None else batch
        self._pixels = engine.pixels if batch is None else None
        self.observers: list[PassObserver] = []
        self._lock = threading.Condition()
        self._waiting, self._open, self._running = WaitingRows(), set[Ticket](), set[Ticket]()
        self._closing = False
        self._passes, self._rows, self._seconds, self._dropped = 0, 0, 0.0, dict.fromkeys(_WHYS, 0)
        self._each = _FIRST_GUESS
        self._thread = threading.Thread(target=self._work, name="garnish-batcher", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, ticket: Ticket) -> Iterator[None]:
        """Accept a request once: what it submits in the ``with`` block is taken, also while the batcher closes.

        Raises:
            Busy: the queue is full, or the batcher closes. Abandoned: who asked has gone.
        """
        with self._lock:
            self._accept(ticket)
            self._open.add(ticket)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(ticket)
                self._lock.notify_all()

    def submit(self, row: Row, ticket: Ticket) -> Future[Outcome]:
        """Queue a row. Its future gets the outcome, or raises :class:`Busy` or :class:`Abandoned` if it was dropped.

        Cancelling the future takes the row out of the queue.

        Raises:
            Busy: the queue is full, or the batcher closes. Abandoned: who asked has gone.
        """
        waiting = Waiting(row, ticket, Future())
        with self._lock:
            if ticket not in self._open:
                self._accept(ticket)
            self._waiting.add(waiting)
            self._lock.notify_all()
        return waiting.future

    def outcome(self, future: Future[Outcome], ticket: Ticket) -> Outcome:
        """Wait for a row of :meth:`submit`. At its request's deadline it is dropped, unless its pass has begun.

        Raises:
            What the future raises.
        """
        wait([future], max(0.0, ticket.deadline - time.monotonic()))
        if not future.done():
            with self._lock:  # the thread of passes may be in one that takes long
                self._drop_unwanted()
        return future.result()

    def close(self, drain: bool = True) -> None:
        """Accept nothing more, and end when accepted requests have run; without ``drain`` after this pass."""
        with self._lock:
            self._closing = True
            if not drain:
                self._open.clear()
                for waiting in self._waiting.clear():
                    self._refuse(waiting, Busy("the server is stopping; ask again", 1), "full")
            self._lock.notify_all()
        self._thread.join()

    def counts(self) -> BatchCounts:
        """What was done so far."""
        with self._lock:
            queued, dropped = len(self._waiting), dict(self._dropped)
            return BatchCounts(queued, self._passes, self._rows, self._seconds, dropped)

    # ---- accepting and refusing, with the lock held --------------------------------------------------------------

    def _accept(self, ticket: Ticket) -> None:
        """Raise Busy or Abandoned for a request that is not taken."""
        if self._closing:
            self._drop("full")
            raise Busy("the server is stopping; ask again", 1)
        self._drop_unwanted()
        _check(ticket, self._retry_after())
        waiting = self._waiting.tickets | self._open
        if ticket not in waiting and len(waiting - self._running) >= self._queue:
            self._drop("full")
            raise Busy(f"the queue is full, with {self._queue} requests; ask again", self._retry_after())

    def _drop_unwanted(self) -> None:
        for waiting in self._waiting.dropped():
            if waiting.future.cancelled():
                continue
            try:
                _check(waiting.ticket, self._retry_after())
            except GarnishError as error:
                self._refuse(waiting, error, "gone" if isinstance(error, Abandoned) else "late")

    def _refuse(self, waiting: Waiting, error: GarnishError, why: Drop) -> None:
        if waiting.future.set_running_or_notify_cancel():
            waiting.future.set_exception(error)
            self._drop(why)

    def _drop(self, why: Drop) -> None:
        self._dropped[why] += 1
        self._observed(lambda observer: observer.dropped(why))

    def _observed(self, tell: Callable[[PassObserver], None]) -> None:
        """Tell who observes; none of them can end the thread of passes."""
        for observer in self.observers:
            try:
                tell(observer)
            except Exception:
                _log.exception("an observer of passes failed")

    def _retry_after(self) -> int:
        """Seconds until what waits now has run, by what rows took lately."""
        return max(1, min(math.ceil((len(self._waiting) + len(self._running)) * self._each), _LONGEST_WAIT))

    # ---- passes ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            began = time.monotonic()
            outcomes = self._outcomes([waiting.row for waiting in taken])
            self._tell(taken, outcomes, began, time.monotonic())
            del taken, outcomes  # not held while the next is waited for

    def _next(self) -> list[Waiting] | None:
        """The rows of the next pass; None: there will be none."""
        with self._lock:
            while True:
                self._drop_unwanted()
                taken = self._waiting.take(self.batch, _MOST_BYTES, self._pixels)
                taken = [waiting for waiting in taken if waiting.future.set_running_or_notify_cancel()]
                if taken:
                    self._running = {waiting.ticket for waiting in taken}
                    return taken
                if len(self._waiting):
                    continue  # what was taken had been cancelled meanwhile
                if self._closing and not self._open:
                    return None
                self._lock.wait()

    def _outcomes(self, rows: Sequence[Row]) -> list[Outcome | Exception]:
        """Of each row; after an unexpected error of the pass, of each by itself, so that it fails alone."""
        try:
            found = self._engine.run(rows)
            if len(found) != len(rows):
                raise RuntimeError(f"a pass of {len(rows)} rows gave {len(found)} outcomes")
            return list(found)
        except Exception as error:
            if len(rows) == 1:
                if not isinstance(error, GarnishError):
                    _log.exception("a pass failed")
                return [error]
            _log.warning("a pass of %d rows failed (%s); they run one by one", len(rows), one_line(error, 200))
        return [outcome for row in rows for outcome in self._outcomes([row])]

    def _tell(
        self, taken: Sequence[Waiting], outcomes: Sequence[Outcome | Exception], began: float, ended: float
    ) -> None:
        """Write times into tickets, count, and hand outcomes on."""
        seconds = ended - began
        for waiting in taken:
            timings = waiting.ticket.timings
            timings["queue"] = timings.get("queue", 0.0) + (began - waiting.since) * 1000
        for ticket in {waiting.ticket for waiting in taken}:
            ticket.timings["forward"] = ticket.timings.get("forward", 0.0) + seconds * 1000
        with self._lock:
            self._running = set()
            self._passes, self._rows, self._seconds = self._passes + 1, self._rows + len(taken), self._seconds + seconds
            each = seconds / len(taken)
            self._each = each if self._passes == 1 else self._each + _NEWEST * (each - self._each)
        self._observed(lambda observer: observer.passed(len(taken), seconds))
        for waiting, outcome in zip(taken, outcomes, strict=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, GarnishError):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)


def _check(ticket: Ticket, retry_after: int) -> None:
    if ticket.gone.is_set():
        raise Abandoned("who asked has gone")
    if time.monotonic() >= ticket.deadline:
        raise Busy("the request's time passed before its turn; ask again, or allow more", retry_after)
