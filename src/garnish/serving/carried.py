"""A request and its answer on their way between processes, and an application that answers what came elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from starlette.requests import Request
from starlette.types import ASGIApp, Message

from garnish.errors import GarnishError
from garnish.serving.multipart_form import read_form
from garnish.serving.request_reading import content_type_of, read_json_body
from garnish.serving.settings import ServerSettings

#: Names of bundles of a request that are looked at to route it.
_MOST_NAMES = 16


@final
@dataclass(frozen=True, eq=False)
class CarriedRequest:
    """A whole request.

    Attributes:
        method: of HTTP.
        path: below the address that the application is mounted at.
        query: as it came.
        headers: as they came, names in lower case.
        body: all of it.
        client: address and port of who asks.
        scheme: http or https.
        bundles: that it names, by which it is routed.
    """

    method: str
    path: str
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    client: tuple[str, int] | None
    scheme: str
    bundles: Sequence[str] = ()

    @property
    def is_change(self) -> bool:
        """Whether answering it twice may differ from answering it once."""
        return self.method in ("PUT", "DELETE")


@final
@dataclass(frozen=True, eq=False)
class CarriedAnswer:
    """A whole answer: status of HTTP, headers as they are sent, body."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


def carried_request(request: Request, body: bytes, settings: ServerSettings) -> CarriedRequest:
    """A request whose body has been read, with the bundles that it names.

    Args:
        request: in this process.
        body: of it.
        settings: bounds of a form.
    """
    scope = request.scope
    path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"
    client = scope.get("client")
    return CarriedRequest(
        method=scope["method"],
        path=path,
        query=scope.get("query_string", b""),
        headers=[(bytes(name), bytes(value)) for name, value in scope["headers"]],
        body=body,
        client=None if client is None else (str(client[0]), int(client[1])),
        scheme=scope.get("scheme", "http"),
        bundles=_named(path, body, request, settings)[:_MOST_NAMES],
    )


def _named(path: str, body: bytes, request: Request, settings: ServerSettings) -> tuple[str, ...]:
    """Names of bundles in a path, a query, a form or a JSON; none where that cannot be read, as the answer will say."""
    if path.startswith("/v1/bundles/"):
        return (path.removeprefix("/v1/bundles/"),)
    if path != "/v1/predict":
        return ()
    kind = content_type_of(request.headers)
    try:
        if kind == "multipart/form-data":
            parts = read_form(body, request.headers["content-type"], settings.parts)
            return tuple(part.data.decode("utf-8", "replace") for part in parts if part.name == "bundle")
        if kind == "application/json":
            found = read_json_body(body).get("bundle", [])
            return tuple(name for name in (found if isinstance(found, list) else [found]) if isinstance(name, str))
    except GarnishError:
        return ()
    return tuple(request.query_params.getlist("bundle"))


@final
class CarriedRequests:
    """Answers carried requests by an application.

    Args:
        app: answers them; its lifespan is the caller's to begin and end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running: set[asyncio.Task[None]] = set()

    async def answer(self, carried: CarriedRequest) -> CarriedAnswer:
        """One answer. Where the caller is cancelled, the application is told that the client has gone."""
        came: asyncio.Queue[Message] = asyncio.Queue()
        came.put_nowait({"type": "http.request", "body": carried.body, "more_body": False})
        start: dict[str, Any] = {}
        body: list[bytes] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body.append(message.get("body", b""))

        task = asyncio.ensure_future(self._answered(carried, came, send))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        finally:
            came.put_nowait({"type": "http.disconnect"})  # nobody waits for it once the answer is whole
        headers = [(bytes(name), bytes(value)) for name, value in start["headers"]]
        return CarriedAnswer(start["status"], headers, b"".join(body))

    async def _answered(self, carried: CarriedRequest, came: asyncio.Queue[Message], send: Any) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": carried.method,
            "scheme": carried.scheme,
            "path": carried.path,
            "raw_path": carried.path.encode(),
            "query_string": carried.query,
            "root_path": "",
            "headers": list(carried.headers),
            "client": carried.client,
            "server": None,
        }
        await self._app(scope, came.get, send)
