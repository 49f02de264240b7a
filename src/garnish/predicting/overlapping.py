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
from garnish.pictures.raster import Georeference
from garnish.predicting.picture_sources import PictureSource
from garnish.tiles.stopping import Stopped, stopped_by

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
@dataclass(frozen=True, eq=False)
class TakenPicture:
    """A picture that was read.

    Attributes:
        shown: (H, W, 3) uint8, as people see it.
        given: (C, H, W), as the model takes it; it may share the memory of ``shown``.
        place: where it lies on the ground, as its file says.
        empty: (H, W) bool, where no band has data; None: there is data everywhere.
        dtype: of numbers of other bands than RGB, as they are stored; None: it is not told.
    """

    shown: np.ndarray
    given: np.ndarray
    place: Georeference | None = None
    empty: np.ndarray | None = None
    dtype: np.dtype | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self.shown.nbytes + (0 if np.may_share_memory(self.shown, self.given) else self.given.nbytes)


@final
@dataclass(frozen=True)
class PictureWork(Generic[Raw, Made]):
    """What is done with pictures.

    Attributes:
        read: reads one.
        run: pictures of one shape and dtype → what a pass gives of each; called by one thread.
        finish: a source, its picture, what the pass gave → the result.
        batch: how many pictures of this shape a pass takes.
    """

    read: Callable[[PictureSource], TakenPicture]
    run: Callable[[list[PictureSource], list[TakenPicture]], list[Raw]]
    finish: Callable[[PictureSource, TakenPicture, Raw], Made]
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
    the pass or the window that is under way, so that no file is left half written.

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
        self._read: queue.Queue[tuple[PictureSource | None, Future[TakenPicture | None]]] = queue.Queue(_AHEAD)
        self._readers = ThreadPoolExecutor(_READERS, "garnish-read")
        self._finishers = ThreadPoolExecutor(_FINISHERS, "garnish-finish")
        self._stopped = threading.Event()
        self._held, self._begun, self._room = 0, 0, threading.Condition()
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
        end: Future[TakenPicture | None] = Future()
        try:
            for number, source in enumerate(self._sources):
                self._wait_for_room()
                self._put(self._read, (source, self._readers.submit(self._take, source, number)))
            end.set_result(None)
        except Stopped:
            return
        except BaseException as error:
            end.set_exception(error)
        with contextlib.suppress(Stopped):
            self._put(self._read, (None, end))

    def _take(self, source: PictureSource, number: int) -> TakenPicture | None:
        self._wait_for_room(number)  # once more, for many may have been asked for before one was read
        with self._room:
            self._begun += 1
            self._room.notify_all()
        picture = self._work.read(source)
        with self._room:
            self._held += picture.nbytes
        return picture

    def _wait_for_room(self, number: int | None = None) -> None:
        """Wait until what is read and waits leaves room for more, and all pictures before this one are begun.

        So a picture waits for earlier ones alone, which the passes take first.
        """
        with self._room:
            self._room.wait_for(
                lambda: self._stopped.is_set() or (self._held < _MOST_BYTES and number in (None, self._begun))
            )
        if self._stopped.is_set():
            raise Stopped

    def _run(self) -> None:
        end: Future[Done | Failure] = Future()
        try:
            with stopped_by(self._stopped.is_set):
                self._run_all()
            self._put(self.results, None)
        except Stopped:
            pass
        except BaseException as error:
            end.set_exception(error)
            with contextlib.suppress(Stopped):
                self._put(self.results, end)

    def _run_all(self) -> None:
        ahead = self._next()
        while ahead is not None:
            source, reading = ahead
            group: list[tuple[PictureSource, TakenPicture]] = []
            try:
                group.append((source, self._taken(reading)))
            except GarnishError as error:
                self._put(self.results, _done(Failure(source, error)))
                ahead = self._next()
                continue
            first = group[0][1].given
            most = self._work.batch(first.shape)
            ahead = self._next()
            while ahead is not None and len(group) < most and _fits(ahead[1], first):
                group.append((ahead[0], self._taken(ahead[1])))
                ahead = self._next()
            raws = self._work.run([source for source, _ in group], [picture for _, picture in group])
            for (source, picture), raw in zip(group, raws, strict=True):
                self._put(self.results, self._finishers.submit(self._finish, source, picture, raw))
            del group, raws, raw, picture

    def _taken(self, reading: Future[TakenPicture | None]) -> TakenPicture:
        """The picture that goes into a pass, and leaves room for others from now on."""
        picture = reading.result()
        assert picture is not None, "only the end of the queue has none"
        with self._room:
            self._held -= picture.nbytes
            self._room.notify_all()
        return picture

    def _next(self) -> tuple[PictureSource, Future[TakenPicture | None]] | None:
        while True:
            if self._stopped.is_set():
                raise Stopped
            try:
                source, reading = self._read.get(timeout=0.1)
            except queue.Empty:
                continue
            if source is None:
                reading.result()  # raises what the sources raised
                return None
            return source, reading

    def _finish(self, source: PictureSource, picture: TakenPicture, raw: Any) -> Done | Failure:
        try:
            made = self._work.finish(source, picture, raw)
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
        raise Stopped


def _done(value: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(value)
    return done


def _fits(reading: Future[TakenPicture | None], first: np.ndarray) -> bool:
    """Whether a picture goes through a pass with ``first``; waits until it is read."""
    if reading.exception() is not None:
        return False
    picture = reading.result()
    assert picture is not None, "only the end of the queue has none"
    return picture.given.shape == first.shape and picture.given.dtype == first.dtype
