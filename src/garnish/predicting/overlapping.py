"""Reading, passes and what follows them, each in threads of its own, so that none waits for the others in turn.

Pictures are read ahead, as many as :data:`_AHEAD` and the bytes of :data:`_MOST_BYTES` allow; neighbours of one size go
through a pass together; results come in the order of the pictures.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, final

import numpy as np

from garnish.checking.plain_data import integers
from garnish.errors import GarnishError
from garnish.predicting.picture_sources import PictureSource

#: Pictures that are read before a pass takes them; results that wait for who asked.
_AHEAD, _WAITING = 8, 4
#: Bytes of read pictures at which no further one is read.
_MOST_BYTES = 2**28
#: Threads that read, and that decode and write.
_READERS, _FINISHERS = 2, 2

#: Of a video, each so-manieth frame; pictures of one size that go through a pass together.
Every = Annotated[int, integers(1, 1_000_000)]
PassSize = Annotated[int, integers(1, 1024)]

Raw = TypeVar("Raw")
Made = TypeVar("Made")
Done = TypeVar("Done")


@final
@dataclass(frozen=True)
class PictureWork(Generic[Raw, Made]):
    """What is done with pictures.

    Attributes:
        read: a source → (H, W, C).
        run: pictures of one shape and dtype → their raw outputs; called by one thread.
        finish: a source, its pixels, the outputs of ``run``, and its place among them → the result.
        batch: how many pictures of this shape a pass takes.
    """

    read: Callable[[PictureSource], np.ndarray]
    run: Callable[[list[np.ndarray]], Raw]
    finish: Callable[[PictureSource, np.ndarray, Raw, int], Made]
    batch: Callable[[tuple[int, ...]], int]


@final
@dataclass(frozen=True)
class Failure:
    """A picture without a result.

    Attributes:
        source: the picture.
        error: why.
    """

    source: PictureSource
    error: GarnishError


def overlapped(
    sources: Iterable[PictureSource], work: PictureWork[Any, Made], then: Callable[[Made], Done]
) -> Generator[Done | Failure, None, None]:
    """The result of each picture, or why it has none, in order.

    Errors of garnish in reading and finishing a picture are its failure; all else ends the iteration and is raised:
    what ``sources``, ``run`` and ``then`` raise, and unexpected errors. Closing the iterator, or an error, waits for
    what is under way, so that no file is left half written.

    Args:
        sources: the pictures; asked by one thread.
        work: what is done with them.
        then: called with each result, in the threads that finish; it may write files.
    """
    flow = _Flow(sources, work, then)
    try:
        flow.start()
        while (found := flow.results.get()) is not None:
            yield found.result()
    finally:
        flow.stop()


def without_failures(
    found: Generator[Made | Failure, None, None], failures: list[Failure] | None
) -> Generator[Made, None, None]:
    """The results of :func:`overlapped` without failures: they are added to ``failures``; None: the first is raised."""
    with contextlib.closing(found):
        for result in found:
            if not isinstance(result, Failure):
                yield result
            elif failures is None:
                raise result.error
            else:
                failures.append(result)


@final
class _Flow(Generic[Made, Done]):
    """The threads of one call: one asks for sources, some read, one runs passes, some finish."""

    def __init__(
        self, sources: Iterable[PictureSource], work: PictureWork[Any, Made], then: Callable[[Made], Done]
    ) -> None:
        self._sources, self._work, self._then = sources, work, then
        self.results: queue.Queue[Future[Done | Failure] | None] = queue.Queue(_WAITING)
        self._read: queue.Queue[tuple[PictureSource | None, Future[np.ndarray]]] = queue.Queue(_AHEAD)
        self._readers = ThreadPoolExecutor(_READERS, "garnish-read")
        self._finishers = ThreadPoolExecutor(_FINISHERS, "garnish-finish")
        self._stopped = threading.Event()
        self._held, self._room = 0, threading.Condition()
        self._asks = threading.Thread(target=self._ask, name="garnish-sources", daemon=True)
        self._passes = threading.Thread(target=self._run, name="garnish-passes", daemon=True)

    def start(self) -> None:
        self._asks.start()
        self._passes.start()

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way, but not for a generator of the caller's that waits."""
        self._stopped.set()
        with self._room:
            self._room.notify_all()
        for pool in (self._readers, self._finishers):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._passes.ident is not None:
            self._passes.join()
            self._asks.join(timeout=1.0)
        for pool in (self._readers, self._finishers):
            pool.shutdown(wait=True)

    def _ask(self) -> None:
        """Submit the reading of each source; the queue's last entry has none, and an error if there was one."""
        end: Future[np.ndarray] = Future()
        try:
            for source in self._sources:
                with self._room:
                    self._room.wait_for(lambda: self._held < _MOST_BYTES or self._stopped.is_set())
                if self._stopped.is_set():
                    return
                self._put(self._read, (source, self._readers.submit(self._take, source)))
            end.set_result(np.empty(0))
        except _Stopped:
            return
        except BaseException as error:
            end.set_exception(error)
        with contextlib.suppress(_Stopped):
            self._put(self._read, (None, end))

    def _take(self, source: PictureSource) -> np.ndarray:
        pixels = self._work.read(source)
        with self._room:
            self._held += pixels.nbytes
        return pixels

    def _run(self) -> None:
        end: Future[Done | Failure] = Future()
        try:
            self._run_all()
            self._put(self.results, None)
        except _Stopped:
            pass
        except BaseException as error:
            end.set_exception(error)
            with contextlib.suppress(_Stopped):
                self._put(self.results, end)

    def _run_all(self) -> None:
        ahead = self._next()
        while ahead is not None:
            source, reading = ahead
            group: list[tuple[PictureSource, np.ndarray]] = []
            try:
                group.append((source, self._taken(reading)))
            except GarnishError as error:
                self._put(self.results, _done(Failure(source, error)))
                ahead = self._next()
                continue
            first = group[0][1]
            most = self._work.batch(first.shape)
            ahead = self._next()
            while ahead is not None and len(group) < most and _fits(ahead[1], first):
                group.append((ahead[0], self._taken(ahead[1])))
                ahead = self._next()
            raw = self._work.run([pixels for _, pixels in group])
            for place, (source, pixels) in enumerate(group):
                self._put(self.results, self._finishers.submit(self._finish, source, pixels, raw, place))

    def _taken(self, reading: Future[np.ndarray]) -> np.ndarray:
        """The pixels of a picture that goes into a pass, which leave room for others from now on."""
        pixels = reading.result()
        with self._room:
            self._held -= pixels.nbytes
            self._room.notify_all()
        return pixels

    def _next(self) -> tuple[PictureSource, Future[np.ndarray]] | None:
        while True:
            if self._stopped.is_set():
                raise _Stopped
            try:
                source, reading = self._read.get(timeout=0.1)
            except queue.Empty:
                continue
            if source is None:
                reading.result()  # raises what the sources raised
                return None
            return source, reading

    def _finish(self, source: PictureSource, pixels: np.ndarray, raw: Any, place: int) -> Done | Failure:
        try:
            made = self._work.finish(source, pixels, raw, place)
        except GarnishError as error:
            return Failure(source, error)
        return self._then(made)

    def _put(self, line: queue.Queue[Any], entry: Any) -> None:
        """Wait for room in a queue, until stopped."""
        while not self._stopped.is_set():
            try:
                line.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return
        raise _Stopped


@final
class _Stopped(Exception):
    """Nobody asks for results any more."""


def _done(value: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(value)
    return done


def _fits(reading: Future[np.ndarray], first: np.ndarray) -> bool:
    """Whether a picture goes through a pass with ``first``; waits until it is read."""
    if reading.exception() is not None:
        return False
    pixels = reading.result()
    return pixels.shape == first.shape and pixels.dtype == first.dtype
