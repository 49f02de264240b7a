"""What is known of each request while it runs, and the line and the counts that it leaves."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from garnish.errors import GarnishError, one_line
from garnish.output import logger
from garnish.serving.http_refusals import headers_of, status_of
from garnish.serving.metrics import ServerMetrics

_log = logger(__name__)

#: An identity that others gave a request, which logs and answers repeat.
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Names of bundles that a log line lists.
_MOST_NAMES = 8
#: Characters of a path that has no route, and of an error, that a log line shows.
_LONGEST_PATH, _LONGEST_ERROR = 200, 400
#: Characters of a token that tell something of it.
_PART = 4


@final
@dataclass(eq=False)
class RequestRecord:
    """One request.

    Attributes:
        id: ``X-Request-Id``, its own or one of ours.
        route: the pattern of its path; "other": there is none.
        error: the line that it was refused with; empty: it was not.
        bundles: that it asks for.
        taken: bytes of its body.
        timings: milliseconds by stage.
    """

    id: str
    route: str = "other"
    error: str = ""
    bundles: Sequence[str] = ()
    taken: int = 0
    timings: dict[str, float] = field(default_factory=dict)


def record_of(scope: Scope) -> RequestRecord:
    """The record of a request of :class:`WatchedRequests`."""
    found: RequestRecord = scope["garnish.record"]
    return found


@final
class Lifecycle:
    """Where the server stands.

    Attributes:
        unready: why not every request would be answered; empty: it is ready.
        stopping: whether new work is refused.
        running: requests that are being answered.
    """

    def __init__(self) -> None:
        self.unready, self.stopping, self.running = "warming up", False, 0


@final
class WatchedRequests:
    """Wraps the application: identities, log lines, counts, and errors as JSON.

    Args:
        app: what answers.
        metrics: count requests.
        lifecycle: counts those that run.
        token: that no log line may have, wherever a request has put it; None: there is none.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, lifecycle: Lifecycle, token: str | None = None) -> None:
        self._app, self._metrics, self._lifecycle, self._token = app, metrics, lifecycle, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        record = scope["garnish.record"] = RequestRecord(given if _ID.fullmatch(given) else secrets.token_hex(8))
        began, sent = time.monotonic(), {"status": 0, "bytes": 0}

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = record.id
            elif message["type"] == "http.response.body":
                sent["bytes"] += len(message.get("body", b""))
            await send(message)

        self._lifecycle.running += 1
        self._metrics.running.inc()
        try:
            await self._answered(scope, receive, noted, sent)
        finally:
            self._lifecycle.running -= 1
            self._metrics.running.dec()
            self._leave(scope, record, sent, time.monotonic() - began)

    async def _answered(self, scope: Scope, receive: Receive, send: Send, sent: dict[str, int]) -> None:
        try:
            await self._app(scope, receive, send)
        except GarnishError as error:
            record_of(scope).error = str(error)
            answer = JSONResponse({"error": str(error)}, status_of(error), headers_of(error))
        except Exception:
            _log.exception("a request failed by a fault of the server", extra={"facts": {"id": record_of(scope).id}})
            answer = JSONResponse({"error": f"the server failed; its log tells of {record_of(scope).id}"}, 500)
        else:
            return
        if not sent["status"]:
            await answer(scope, receive, send)

    def _leave(self, scope: Scope, record: RequestRecord, sent: dict[str, int], seconds: float) -> None:
        status = sent["status"] or 499
        self._metrics.answered(record.route, status, seconds, record.timings)
        facts: dict[str, object] = {"id": record.id, "route": record.route, "status": status}
        facts["ms"] = round(seconds * 1000, 1)
        facts |= {f"{stage}_ms": round(value, 1) for stage, value in record.timings.items()}
        if record.bundles:
            facts["bundles"] = [without_token(name, self._token) for name in record.bundles[:_MOST_NAMES]]
        if len(record.bundles) > _MOST_NAMES:
            facts["more_bundles"] = len(record.bundles) - _MOST_NAMES
        facts |= {"bytes_in": record.taken, "bytes_out": sent["bytes"]}
        if record.route == "other":
            facts["path"] = self._hidden(scope["path"], _LONGEST_PATH)
        if record.error:
            facts["error"] = self._hidden(record.error, _LONGEST_ERROR)
        _log.info("%s", f"{scope['method'][:16]} {record.route}", extra={"facts": facts})

    def _hidden(self, text: str, limit: int) -> str:
        """A stranger's text in one line of so many characters, without the token."""
        return one_line(without_token(text, self._token), limit)


def without_token(text: str, token: str | None) -> str:
    """A text with ``***`` for a token, as it is, as ``repr`` writes it, and where a message was cut within it."""
    for form in (token, repr(token)[1:-1]) if token else ():
        assert form is not None
        text = text.replace(form, "***")
        for length in range(len(form) - 1, _PART - 1, -1) if "…" in text else ():
            text = text.replace(f"{form[:length]}…", "***…")
    return text
