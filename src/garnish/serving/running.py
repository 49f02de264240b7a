"""The process that listens: its socket, slow clients, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from garnish import __version__
from garnish.errors import OptionError, one_line, shown
from garnish.output import logger
from garnish.serving.app import ServerParts

_log = logger(__name__)

#: Seconds in which the head of a request must have come; and in which a client must take so many bytes of its answer,
#: or all that is left.
_HEAD_SECONDS, _TAKING_SECONDS, _TAKEN_BYTES = 20.0, 60.0, 2**18
#: Most bytes of a request's line and headers; connections at a time.
_HEAD_BYTES, _CONNECTIONS = 32_768, 512
#: Seconds after the last answer that clients have to take what was sent to them.
_LAST_SECONDS = 30
_ANY = ("0.0.0.0", "::")


@final
class _Protocol(H11Protocol):
    """uvicorn's, which waits for ever for a head that was begun, and for a client that takes nothing."""

    def connection_made(self, transport: Any) -> None:
        """Bound the number of connections, and wait for a head."""
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(0)  # writing pauses while anything waits, and goes on when all was taken
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """A whole head ends the wait; half of the next one begins another."""
        super().data_received(data)
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy:
            self._stop_head()
        elif self._head is None and not self.transport.is_closing():
            self._wait_for_head()

    def on_response_complete(self) -> None:
        """The next head may take its time again; uvicorn itself closes what stays silent."""
        super().on_response_complete()
        self._stop_head()

    def pause_writing(self) -> None:
        """Wait for a client that takes nothing, also after the answer is complete and the connection to be closed."""
        super().pause_writing()
        self._wait_for_taking()

    def resume_writing(self) -> None:
        """It has taken all."""
        super().resume_writing()
        self._stop_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        self._stop_head()
        self._stop_taking()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head = asyncio.get_running_loop().call_later(_HEAD_SECONDS, self.transport.abort)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _wait_for_taking(self) -> None:
        before = self.transport.get_write_buffer_size()
        self._taking = asyncio.get_running_loop().call_later(_TAKING_SECONDS, self._look, before)

    def _look(self, before: int) -> None:
        if self.transport.get_write_buffer_size() > before - _TAKEN_BYTES:
            self.transport.abort()
        else:
            self._wait_for_taking()

    def _stop_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None


@final
class _Server(uvicorn.Server):
    """Ends by SIGTERM or Ctrl-C once every accepted request has its answer; by a second one at once."""

    def __init__(self, config: uvicorn.Config, parts: ServerParts, at_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._parts, self._at_start = parts, at_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._at_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours in place of uvicorn's, which would end by the signal and stop listening at once."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, self._signalled) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _signalled(self, kind: int, frame: FrameType | None) -> None:
        lifecycle = self._parts.lifecycle
        if lifecycle.stopping:
            os._exit(128 + kind)
        lifecycle.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to end: asked ten times a second."""
        lifecycle = self._parts.lifecycle
        if lifecycle.stopping and counter % 10 == 0:
            _log.info("stopping: %d requests are being answered", lifecycle.running)
        return await super().on_tick(counter) or (lifecycle.stopping and lifecycle.running == 0)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket of an address, which nobody can connect to before the server listens.

    Raises:
        OptionError: no such address, or the port is taken.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
    except OSError as error:
        raise OptionError(f"serve: --host {shown(host)} is no address here ({one_line(error, 80)})") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        reason = error.strerror or one_line(error, 80)
        raise OptionError(f"serve: {host}:{port} cannot be listened at ({reason}); choose another --port") from error
    return made


def address_of(listening: socket.socket) -> str:
    """``http://HOST:PORT``."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def host_names(host: str) -> tuple[frozenset[str], bool]:
    """What ``Host`` may say of a server at ``--host``: names, and whether any numeric address."""
    if host in _ANY:
        return frozenset({socket.gethostname().lower()}), True
    try:
        return frozenset({str(ipaddress.ip_address(host)), host.lower()}), False
    except ValueError:
        return frozenset({host.lower()}), False


def run_app(app: Starlette, listening: socket.socket, at_start: Callable[[], None]) -> None:
    """Serve until a signal ends it; its start and its end leave a line in the log each.

    Args:
        app: of :func:`garnish.serving.app.make_app`.
        listening: of :func:`bound_socket`.
        at_start: is called when it listens.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        backlog=256,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    parts: ServerParts = app.state.parts
    address = address_of(listening)

    def started() -> None:
        at_start()
        trunk = {"trunk": parts.trunk["name"]} if "name" in parts.trunk else {}
        facts = {"address": address, **trunk, "version": __version__, "pid": os.getpid()}
        _log.info("started", extra={"facts": facts})

    _Server(config, parts, started).run(sockets=[listening])
    _log.info("stopped", extra={"facts": {"address": address}})
