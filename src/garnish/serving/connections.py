"""``Connections``: HTTP to one server, a connection a thread, with its errors as those of garnish. No torch."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Mapping
from typing import final
from urllib.parse import urlsplit

from garnish.checking.plain_data import Json
from garnish.errors import DataError, GarnishError, OptionError, one_line, shown
from garnish.files.strict_json import MOST_BYTES, parse_json
from garnish.serving.refusals import Busy, TooLarge, UnknownBundle

#: What a connection that the server closed meanwhile answers.
_CLOSED = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ConnectionAbortedError)
_TYPES: Mapping[int, type[GarnishError]] = {404: UnknownBundle, 413: TooLarge}


class ServerError(GarnishError):
    """The server cannot be reached, refuses who asks, or answers what no garnish server does.

    ``status`` is HTTP's number; None where nothing was answered.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@final
class Connections:
    """A server's address. Each thread has its connection, which it keeps; proxies are not used.

    Args:
        url: such as ``http://127.0.0.1:8000``.
        token: sent with each request.
        timeout: seconds to wait for the server to take or to send something.

    Raises:
        OptionError: no address of a server, or a token that HTTP does not send.
    """

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # a port that is none
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query or parts.fragment:
            raise OptionError(f"Client: url: {shown(url, 200)} is no address; give one like http://127.0.0.1:8000")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise OptionError("Client: token: has characters that HTTP does not send; give the server's")
        self.url = url.rstrip("/")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path, self._timeout = host, port, parts.path.rstrip("/"), float(timeout)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._own, self._lock = threading.local(), threading.Lock()
        self._open: dict[threading.Thread, http.client.HTTPConnection] = {}

    def close(self) -> None:
        """Close the connections of all threads; what asks later opens new ones."""
        with self._lock:
            for connection in self._open.values():
                connection.close()
            self._open.clear()
            self._own = threading.local()

    def json(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        refusal: type[GarnishError] = DataError,
    ) -> dict[str, Json]:
        """The mapping that an answer holds; raises as :meth:`ask`."""
        _, data = self.ask(method, target, body, headers or {}, refusal=refusal)
        try:
            found = parse_json(data)
        except ValueError as error:
            raise self.odd(target, error) from error
        if not isinstance(found, dict):
            raise self.odd(target)
        return found

    def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        most: int = MOST_BYTES,
        refusal: type[GarnishError] = DataError,
    ) -> tuple[int, bytes]:
        """Status and body of an answer of at most so many bytes; raises what an error of the server says."""
        while True:
            connection, used = self._connection()
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before the end
                    connection.request(method, self._path + target, body or None, {**self._headers, **(headers or {})})
                response = connection.getresponse()
                # without an amount, it tells of answers that end early
                data = response.read(None if response.length is not None and response.length <= most else most + 1)
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if used and isinstance(error, _CLOSED):
                    continue  # the server had closed the connection, and has seen nothing of this
                told = f"{type(error).__name__}: {one_line(error, 120)}"
                raise ServerError(f"{self.url}: no answer ({told}); is garnish serve running there?") from error
        if len(data) > most:
            connection.close()
            raise self.odd(target, ValueError(f"more than {most:,} bytes"))
        if response.status < 400:
            return response.status, data
        raise self._refused(response, data, target, refusal)

    def _refused(
        self, response: http.client.HTTPResponse, data: bytes, target: str, refusal: type[GarnishError]
    ) -> GarnishError:
        """The error that the server names in one line."""
        status, told = response.status, None
        with contextlib.suppress(ValueError):
            parsed = parse_json(data)
            told = parsed.get("error") if isinstance(parsed, dict) else None
        line = told if isinstance(told, str) else f"{self.url}{target.partition('?')[0]}: HTTP {status}"
        if status == 503:
            after = response.headers.get("Retry-After", "1")
            return Busy(line, min(int(after), 3600) if after.isascii() and after.isdigit() else 1)
        if status in (400, 415, 422):
            return refusal(line)
        return _TYPES[status](line) if status in _TYPES else ServerError(line, status)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's, and whether it is open already."""
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._kind(self._host, self._port, timeout=self._timeout)
            with self._lock:
                for thread in [thread for thread in self._open if not thread.is_alive()]:
                    self._open.pop(thread).close()
                self._open[threading.current_thread()] = connection
        return connection, connection.sock is not None

    def odd(self, target: str, error: BaseException | None = None) -> ServerError:
        """The error for an answer that no garnish server gives."""
        why = "" if error is None else f" ({one_line(error, 120)})"
        return ServerError(
            f"{self.url}{target.partition('?')[0]}: the answer is no garnish server's{why}; check the address"
        )
