"""Which status of HTTP an error has, and the refusals that only HTTP knows."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from garnish.errors import BundleError, GarnishError
from garnish.serving.refusals import Abandoned, Busy, TooLarge, UnknownBundle

#: No space: of a disk, of a quota.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class HttpRefusal(GarnishError):
    """A request that is refused as it stands.

    Attributes:
        status: of HTTP.
        headers: of the answer, beside the usual ones.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.headers = status, dict(headers or {})


def status_of(error: GarnishError) -> int:
    """The status that an error of garnish has as an answer."""
    if isinstance(error, HttpRefusal):
        return error.status
    if isinstance(error, UnknownBundle):
        return 404
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, Busy):
        return 503
    if isinstance(error, Abandoned):
        return 499  # nobody reads it; logs show it
    return 507 if isinstance(error, BundleError) and _lacks_space(error) else 422


def _lacks_space(error: BaseException) -> bool:
    cause = error.__cause__
    return cause is not None and ((isinstance(cause, OSError) and cause.errno in _FULL) or _lacks_space(cause))


def headers_of(error: GarnishError) -> dict[str, str]:
    """Headers of the answer to an error."""
    if isinstance(error, HttpRefusal):
        return error.headers
    return {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else {}
