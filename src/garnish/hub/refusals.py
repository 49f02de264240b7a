"""What the Hub refuses, and a network that does not answer, as one line with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from garnish.errors import GarnishError, HubError, one_line
from garnish.hub.address import is_short_commit

_LOGIN = "run `hf auth login`, or set HF_TOKEN"
#: HTTP status → what it means here, and what to do.
_STATUS = {
    400: ("refuses the request", "look at what is sent with --dry-run"),
    401: ("does not accept the token", f"{_LOGIN} to one that is valid"),
    402: (
        "wants a plan that is paid for (a quota is used up)",
        "look at the account's settings, or remove files there",
    ),
    403: (
        "does not allow it to this token",
        f"{_LOGIN} to a token of that account with the right to read or write there",
    ),
    404: ("does not have it", "check the spelling"),
    409: ("has another change under way", "try again in a minute"),
    412: ("was changed by somebody else meanwhile", "try again"),
    413: ("finds it too large (a quota is used up)", "look at the account's settings, or remove files there"),
    416: ("sent another part of a file than was asked for", "try again"),
    429: ("had too many requests from here", "wait some minutes, or log in: `hf auth login`"),
}


@contextmanager
def hub_errors(where: str, *, offline: str = "unset it once", revision: str | None = None) -> Iterator[None]:
    """Turn whatever huggingface_hub and its network raise inside a ``with`` block into a HubError of one line.

    Args:
        where: the address, for the message.
        offline: what to do where HF_HUB_OFFLINE forbids the network.
        revision: that is asked for, for a message on one that is not there.
    """
    try:
        yield
    except (GarnishError, KeyboardInterrupt):
        raise
    except Exception as error:  # the network client, and so its exceptions, differ by version
        raise HubError(f"{where}: {_told(error, offline, revision)}") from error


def _told(error: Exception, offline: str, revision: str | None) -> str:
    from huggingface_hub import errors

    answers = [answer for one in _chain(error) if (answer := getattr(one, "response", None)) is not None]
    status = getattr(answers[0], "status_code", None) if answers else None
    if _causes(error, errors.OfflineModeIsEnabled):
        return f"is not in the local cache, and HF_HUB_OFFLINE is set; {offline}"
    if _causes(error, errors.GatedRepoError):
        return f"is gated; accept its terms on its page on the Hub, then {_LOGIN}"
    if _causes(error, errors.RevisionNotFoundError):
        if is_short_commit(revision):
            return "has no such revision; a commit needs all 40 digits, which its page has under Files, History"
        return "has no such revision; check the branch, tag or commit on its page"
    if _causes(error, errors.RepositoryNotFoundError):
        return f"no such repository, or a private one; check the spelling, or {_LOGIN}"
    if _causes(error, errors.EntryNotFoundError) and status in (None, 404):
        return "lacks a file that it listed; try again"
    if getattr(errors, "LocalTokenNotFoundError", None) is not None and _causes(error, errors.LocalTokenNotFoundError):
        return f"there is no token; {_LOGIN}"
    if isinstance(status, int):
        if status >= 500:
            return f"the Hub has a fault of its own (HTTP {status}); try again in a minute"
        said, remedy = _STATUS.get(status, ("answered otherwise than expected", "try again"))
        return f"the Hub {said} (HTTP {status}: {_server_words(answers[0])}); {remedy}"
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    if any("Timeout" in name for name in names):
        return "the Hub did not answer in time; try again, or set HF_HUB_OFFLINE=1 to use the copy in the cache"
    if any(
        name.startswith(("Connect", "Network", "Proxy", "Protocol", "RemoteProtocol", "Transport")) for name in names
    ):
        return (
            f"the Hub cannot be reached, or the connection broke ({one_line(error, 100)}); check the network,"
            " or set HF_HUB_OFFLINE=1 to use the copy in the cache"
        )
    return f"the exchange with the Hub failed ({one_line(error, 160)}); try again"


def _server_words(answer: object) -> str:
    """Why, as the server says it."""
    headers = getattr(answer, "headers", {})
    return one_line(headers.get("X-Error-Message") or getattr(answer, "text", ""), 120) or "without a reason"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen = 0
    while error is not None and seen < 10:
        yield error
        error, seen = error.__cause__, seen + 1


def _causes(error: Exception, kind: type[Exception]) -> bool:
    return any(isinstance(one, kind) for one in _chain(error))
