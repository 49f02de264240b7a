"""Requests that are tried again: which failures pass, how long to wait, how often, and that it is told.

fsspec's file systems retry by rules of their own (s3fs five times over botocore's five, others not at all), silently.
So those are switched off where that is possible (:mod:`garnish.stores.remote_files`), and this is the only layer.
"""

from __future__ import annotations

import errno
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, final

from garnish.errors import DataError, GarnishError, one_line, plural
from garnish.output import logger

_log = logger(__name__)

T = TypeVar("T")

#: Longest wait between two tries, and the first, seconds; each is drawn from 0 to twice the one before.
_LONGEST, _FIRST = 10.0, 0.2
#: Answers of HTTP that may be others a moment later; 5xx are, but for "not implemented".
_PASSING = (408, 425, 429)
#: Errors of the system that a network has.
_OF_NETWORKS = (errno.EIO, errno.EBUSY, errno.EAGAIN, errno.EPIPE, errno.EINTR, errno.ENETUNREACH, errno.EHOSTUNREACH)
#: Names of networks' errors in classes of clients, of which none is imported here: urllib3, aiohttp, botocore, httpx.
_NAMES = (
    "Timeout",
    "Connection",
    "Connect",
    "Disconnected",
    "IncompleteRead",
    "ClientPayload",
    "ClientOS",
    "HTTPClientError",
    "ResponseStreaming",
    "Protocol",
    "SlowDown",
)
#: Codes of object stores, where no status is told.
_CODES = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "ThrottlingException")
#: What an error of a wrong name, or of a missing right, is; no other try changes it.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_REMEDIES = {
    FileNotFoundError: "check the address, and that its bucket exists",
    PermissionError: "check the credentials, which come from the environment, and their rights",
}


@final
class IncompleteAnswer(OSError):
    """Fewer or more bytes than were asked for; another try may bring them."""


@final
@dataclass(frozen=True)
class Patience:
    """How often, and for how long, a failed request is tried.

    Attributes:
        tries: at most, the first one included.
        seconds: from the first try on; no further one is begun after that.
    """

    tries: int = 6
    seconds: float = 60.0


@final
class Retrying:
    """Does requests of one place, again where they fail and that may pass.

    Args:
        where: the address, for messages.
        patience: its bounds.

    Attributes:
        count: requests that were tried again, in this process.
    """

    def __init__(self, where: str, patience: Patience | None = None) -> None:
        self.where, self.patience, self.count = where, patience or Patience(), 0
        self._lock = threading.Lock()
        self._random = random.Random()  # of its own: training's numbers do not depend on a network

    def __call__(self, what: str, request: Callable[[], T]) -> T:
        """``request()``, which must be safe to repeat.

        Args:
            what: is done, with the name: ``"reading a/b.png"``.
            request: raises what its client raises.

        Raises:
            DataError: it failed for good, or too often; the message names the place, the name and the reason.
            GarnishError: raised by ``request`` itself.
        """
        began, tried = time.monotonic(), 0
        while True:
            try:
                return request()
            except GarnishError:
                raise
            except Exception as error:  # of whatever client
                tried += 1
                wait = self._random.uniform(0, min(_LONGEST, _FIRST * 2.0**tried))
                spent = time.monotonic() - began
                passing = is_passing(error)
                if not passing or tried >= self.patience.tries or spent + wait > self.patience.seconds:
                    raise DataError(self._told(what, error, tried if passing else 0, spent)) from error
                self._count(what, error)
            time.sleep(wait)

    def _told(self, what: str, error: Exception, tried: int, spent: float) -> str:
        often = f", tried {plural(tried, 'time').replace('1 time', 'once')} in {spent:.0f} s" if tried else ""
        kind = next((kind for kind in _REMEDIES if isinstance(error, kind)), None)
        remedy = "try again, or check the network" if kind is None else _REMEDIES[kind]
        if "NoCredentials" in type(error).__name__ or "PartialCredentials" in type(error).__name__:
            remedy = _REMEDIES[PermissionError]
        return f"{self.where}: {what} failed ({reason(error)}{often}); {remedy}"

    def _count(self, what: str, error: Exception) -> None:
        with self._lock:
            self.count += 1
            first = self.count == 1
        if first:
            _log.info(
                "%s: %s failed (%s) and is tried again; further ones are only counted",
                *(self.where, what),
                reason(error),
            )

    def __getstate__(self) -> dict[str, object]:
        return {"where": self.where, "patience": self.patience}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


def is_passing(error: BaseException) -> bool:
    """Whether another try may succeed: a network's error, throttling, a fault of the server (5xx); not 403 or 404."""
    chain = list(_chain_of(error))
    for one in chain:
        status = _status(one)
        if status is not None:
            return status in _PASSING or (status >= 500 and status != 501)
    if isinstance(error, _LASTING):
        return False
    if any(_code(one) in _CODES for one in chain):
        return True
    for one in chain:
        if isinstance(one, IncompleteAnswer | TimeoutError | ConnectionError | EOFError):
            return True
        if isinstance(one, OSError) and one.errno in _OF_NETWORKS:
            return True
        if any(part in kind.__name__ for kind in type(one).__mro__ for part in _NAMES):
            return True
    return False


def reason(error: BaseException, limit: int = 140) -> str:
    """Why, in a few words without the signed part of an address."""
    text = re.sub(r"\?\S*", "?…", str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and not error.args[2:]:
        text = re.sub(r"\?\S*", "?…", error.strerror)
    return one_line(re.sub(r" \(reached max retries: [0-9]+\)", "", text), limit)


def _status(error: BaseException) -> int | None:
    """The status of HTTP that an error of botocore, aiohttp, gcsfs, azure or requests holds."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(answer, "status_code", None)
    # aiohttp's errors of broken answers have a `code` that no server sent; gcsfs's have no other name for it
    for name in ("status", "status_code", *(["code"] if type(error).__name__ == "HttpError" else [])):
        found = getattr(error, name, None) if found is None else found
    return found if isinstance(found, int) and 100 <= found <= 599 else None


def _code(error: BaseException) -> str:
    """What an object store calls an error."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def _chain_of(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1
