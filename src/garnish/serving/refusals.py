"""Why a request has no answer, beside what is wrong with it."""

from __future__ import annotations

from garnish.errors import GarnishError


class Busy(GarnishError):
    """The queue is full, or the deadline passed before the picture's turn; ``retry_after`` in whole seconds."""

    def __init__(self, text: str, retry_after: int) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Abandoned(GarnishError):
    """Who asked has gone."""


class TooLarge(GarnishError):
    """More bytes or pixels than the server takes."""


class UnknownBundle(GarnishError):
    """No bundle of this name."""
