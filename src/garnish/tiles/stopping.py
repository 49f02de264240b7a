"""Ending the windows of a picture early, where they are run in a thread and nobody asks for them any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final


@final
class Stopped(Exception):
    """Nobody asks for results any more."""


def _never() -> bool:
    return False


_is_stopped: ContextVar[Callable[[], bool]] = ContextVar("is_stopped", default=_never)


@contextmanager
def stopped_by(is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Let :func:`check_stopped` raise inside a ``with`` block, in this thread, once ``is_stopped()`` is true."""
    token = _is_stopped.set(is_stopped)
    try:
        yield
    finally:
        _is_stopped.reset(token)


def check_stopped() -> None:
    """Raise :class:`Stopped` where whoever runs this thread said so; called between windows."""
    if _is_stopped.get()():
        raise Stopped
