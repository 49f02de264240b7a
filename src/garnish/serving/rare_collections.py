"""Garbage collection where many are served: it holds all threads, up to half a second with a thousand bundles.

Bundles, rows and answers are freed as soon as nobody refers to them. The collector is there for circles of references
that errors and requests leave behind, some hundred objects a second; few, but they hold bodies of requests.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds between two collections of everything, and collections of the second generation that would bring one earlier.
_EVERY, _SELDOM = 60.0, 1000


def collect_rarely() -> None:
    """Leave out what is there now of every collection to come, and look through everything else seldom.

    To be called once the trunk and the first bundles are read. It holds for the whole process.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _SELDOM)


@contextmanager
def collecting(every: float = _EVERY) -> Iterator[None]:
    """:func:`collect_rarely`, and a collection of everything else each so many seconds, for a ``with`` block."""
    end = threading.Event()

    def collect() -> None:
        while not end.wait(every):
            gc.collect()

    collect_rarely()
    thread = threading.Thread(target=collect, name="garnish-collections", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
