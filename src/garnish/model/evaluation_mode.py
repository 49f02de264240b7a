"""A context manager that puts a model into evaluation mode, for any number of threads at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class _Visit:
    """How many threads are inside a block for one model, and the mode to restore."""

    training: bool
    count: int = 0


_LOCK = threading.Lock()
_VISITS: WeakKeyDictionary[nn.Module, _Visit] = WeakKeyDictionary()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a ``with`` block; the last thread to leave restores the former mode.

    The mode belongs to the model, not to a thread: a thread that trains it meanwhile trains in evaluation mode.
    """
    with _LOCK:
        visit = _VISITS.setdefault(model, _Visit(model.training))
        if visit.count == 0 and visit.training:
            model.eval()
        visit.count += 1
    try:
        yield
    finally:
        with _LOCK:
            visit.count -= 1
            if visit.count == 0:
                del _VISITS[model]
                if visit.training:
                    model.train()
