"""Who may talk to the server: the right ``Host``, no other site's page; and what browsers may do with answers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from garnish.errors import shown
from garnish.serving.http_refusals import HttpRefusal
from garnish.serving.settings import ServerSettings

#: What the page may do: nothing of another host, no code that is not a file of this server.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Headers that every answer has.
ALWAYS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-store",
}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?")
_PORTS = {"http": "80", "https": "443"}


@final
class Headed:
    """Wraps the application: adds the headers that say what browsers may do with an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, headed)


@final
class Guard:
    """Wraps the application: refuses what comes by another name, from another site's page, or with two lengths.

    A page of another site can have a browser ask any address; that it was asked by another name (a name that was bound
    anew to this machine's address) or from another origin shows in ``Host`` and ``Origin``, which pages cannot set.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refused(Headers(scope=scope))
        if refused is not None:
            raise refused
        await self._app(scope, receive, send)

    def _refused(self, headers: Headers) -> HttpRefusal | None:
        if "transfer-encoding" in headers and "content-length" in headers:  # a proxy may have gone by the other one
            return HttpRefusal(
                400, "Content-Length and Transfer-Encoding: a body has one of them; send one", {"Connection": "close"}
            )
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return HttpRefusal(400, "Host: is missing, or no name with a port")
        name, port = found[1] or found[2], found[3]
        if not self._is_own(name.lower().removesuffix(".")):
            return HttpRefusal(403, f"Host {shown(name)} is none of this server's names; start it with --allow-host")
        for origin in origins:
            if not _same(origin, name.lower(), port):
                return HttpRefusal(
                    403, f"Origin {shown(origin)} is another site; pages of this server alone may ask it"
                )
        return None

    def _is_own(self, name: str) -> bool:
        if name in self._settings.hosts or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._settings.any_address


def _same(origin: str, name: str, port: str | None) -> bool:
    """Whether an origin is the host that was asked; a proxy may have taken TLS off."""
    try:
        parts = urlsplit(origin)
        own = _PORTS.get(parts.scheme)
        return own is not None and parts.hostname == name and str(parts.port or own) == (port or own)
    except ValueError:
        return False
