"""A request's body in memory, bounded in bytes and time; and the picture and the :class:`Asking` that it holds.

A picture comes as its bytes: no path and no address is ever taken from a request.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

from starlette.requests import ClientDisconnect, Request

from garnish.checking.plain_data import Json
from garnish.errors import one_line, shown, suggest
from garnish.files.strict_json import parse_json
from garnish.serving.asked import Asking
from garnish.serving.http_refusals import HttpRefusal
from garnish.serving.multipart_form import FormPart, read_form
from garnish.serving.refusals import Abandoned, Busy
from garnish.serving.settings import ServerSettings

#: What may be said of a picture, as a field, in the query, or as a key.
_ASKED = ("bundle", "tasks", "confidence")
_YES_NO = {"true": True, "false": False}


@final
class HeldBytes:
    """How many bytes of bodies are in memory, and how many requests are being read; of the loop's thread alone."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings, self.bytes, self.reading = settings, 0, 0

    async def read(self, request: Request) -> bytes:
        """The body; :meth:`give_back` its length later.

        Raises:
            HttpRefusal: 400, 408, 413, 415. Busy: too many others are read. Abandoned: the client has gone.
        """
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise HttpRefusal(415, "Content-Encoding: bodies are taken as they are; send it without")
        most = self._settings.body_bytes
        said = request.headers.get("content-length", "0")
        if not said.isascii() or not said.isdigit() or len(said) > 20:
            raise HttpRefusal(400, "Content-Length: is not a whole number")
        if int(said) > most:
            raise _too_large(most)
        if self.reading >= self._settings.reading:
            raise Busy("too many requests are being read; ask again", 1)
        self.reading += 1
        body, taken = bytearray(), 0
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for piece in request.stream():
                    if len(body) + len(piece) > most:
                        raise _too_large(most)
                    if self.bytes + len(piece) > self._settings.held_bytes:
                        raise Busy("too many bytes are being read; ask again", 1)
                    self.bytes += len(piece)
                    taken += len(piece)
                    body += piece
        except BaseException as error:
            self.bytes -= taken
            if isinstance(error, TimeoutError):
                seconds = f"{self._settings.body_seconds:g} s"
                raise HttpRefusal(408, f"the body did not come within {seconds}", {"Connection": "close"}) from None
            if isinstance(error, ClientDisconnect):
                raise Abandoned("the client went away while its request was read") from None
            raise
        finally:
            self.reading -= 1
        return bytes(body)

    def give_back(self, count: int) -> None:
        """So many bytes are no longer held."""
        self.bytes -= count


def _too_large(most: int) -> HttpRefusal:
    return HttpRefusal(
        413, f"the body has more than {most:,} bytes, which is what the server takes", {"Connection": "close"}
    )


def content_type_of(headers: Mapping[str, str]) -> str:
    """``type/subtype`` of a body, in lower case; empty where it is not said."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def read_asked(
    body: bytes, headers: Mapping[str, str], query: Sequence[tuple[str, str]], settings: ServerSettings
) -> tuple[bytes, Asking]:
    """The picture's bytes and what is asked of it.

    Args:
        body: of the request.
        headers: of the request, names in lower case.
        query: of its address, in order.
        settings: bounds.

    Raises:
        HttpRefusal: 400, what cannot be read or is not known; 413; 415, another type.
    """
    kind = content_type_of(headers)
    if kind == "multipart/form-data":
        _no_query(query, "form fields")
        return _of_form(read_form(body, headers["content-type"], settings.parts), settings)
    if kind == "application/json":
        _no_query(query, "keys of the JSON")
        return _of_json(body, settings)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return _some(body), _asking(query, settings)
    said = f"Content-Type {shown(kind)} is not taken" if kind else "Content-Type is missing"
    raise HttpRefusal(415, f"{said}; send multipart/form-data, image/*, application/octet-stream or application/json")


def _no_query(query: Sequence[tuple[str, str]], instead: str) -> None:
    if query:
        raise HttpRefusal(400, f"query: {shown(query[0][0])} is not taken with this body; give it among the {instead}")


def _of_form(parts: Sequence[FormPart], settings: ServerSettings) -> tuple[bytes, Asking]:
    pictures = [part.data for part in parts if part.name == "image"]
    fields = [(part.name, _text(part, settings)) for part in parts if part.name != "image"]
    if len(pictures) != 1:
        raise HttpRefusal(400, f"the form has {len(pictures)} fields image; send one picture a request")
    return _some(pictures[0]), _asking(fields, settings, ("image",))


def _text(part: FormPart, settings: ServerSettings) -> str:
    if part.name not in _ASKED:
        raise _unknown("form field", part.name, ("image", *_ASKED))
    if len(part.data) > settings.field_bytes:
        raise HttpRefusal(413, f"form field {part.name}: has more than {settings.field_bytes:,} bytes")
    try:
        return part.data.decode("utf-8")
    except UnicodeDecodeError:
        raise HttpRefusal(400, f"form field {part.name}: is not UTF-8") from None


def _of_json(body: bytes, settings: ServerSettings) -> tuple[bytes, Asking]:
    asked = read_json_body(body)
    for key in asked:
        if key not in ("image", *_ASKED):
            raise _unknown("key", key, ("image", *_ASKED))
    image = asked.get("image")
    if not isinstance(image, str):
        raise HttpRefusal(400, "key image: expected the picture's file in base64; no address or path is taken")
    try:
        data = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HttpRefusal(400, f"key image: is not base64 ({one_line(error, 80)})") from None
    fields = [(key, text) for key in ("bundle", "tasks") if key in asked for text in _texts(asked[key], key)]
    confidence = asked.get("confidence", False)
    if not isinstance(confidence, bool):
        raise HttpRefusal(400, f"key confidence: expected true or false, found {shown(confidence)}")
    return _some(data), _asking([*fields, ("confidence", str(confidence).lower())], settings)


def read_json_body(body: bytes) -> dict[str, Json]:
    """A body that is one JSON object; raises HttpRefusal (400)."""
    try:
        found: Any = parse_json(body.decode("utf-8"))
    except ValueError as error:
        raise HttpRefusal(400, f"the JSON cannot be read ({one_line(error, 120)})") from None
    if not isinstance(found, dict):
        raise HttpRefusal(400, f"the JSON is {shown(found, 40)}; send an object")
    return found


def _texts(value: Json, key: str) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise HttpRefusal(400, f"key {key}: expected a name or a list of names, found {shown(value)}")
    if not found:
        raise HttpRefusal(400, f"key {key}: an empty list; name some, or leave it out")
    return found


def _asking(fields: Sequence[tuple[str, str]], settings: ServerSettings, also: Iterable[str] = ()) -> Asking:
    """Fields in order: ``bundle`` and ``tasks`` repeat, ``tasks`` also takes ``a,b``."""
    if len(fields) > settings.parts:
        raise HttpRefusal(413, f"{len(fields)} fields are more than {settings.parts}; send fewer")
    said: dict[str, list[str]] = {name: [] for name in _ASKED}
    for name, value in fields:
        if name not in said:
            raise _unknown("field", name, (*also, *_ASKED))
        said[name] += value.split(",") if name == "tasks" else [value]
    for name, values in said.items():
        if not all(0 < len(value) <= 256 and value.isprintable() for value in values):
            raise HttpRefusal(400, f"{name}: a name has 1 to 256 characters that can be shown")
        if len(values) > settings.parts:
            raise HttpRefusal(413, f"{name}: {len(values)} names are more than {settings.parts}; send fewer")
        if twice := [value for value in values if values.count(value) > 1]:
            raise HttpRefusal(400, f"{name}: {shown(twice[0])} is given twice; give it once")
    if len(said["confidence"]) > 1 or not set(said["confidence"]) <= _YES_NO.keys():
        raise HttpRefusal(400, f"confidence: expected true or false, found {shown(', '.join(said['confidence']))}")
    confidence = _YES_NO[said["confidence"][0]] if said["confidence"] else False
    return Asking(tuple(said["bundle"]), tuple(said["tasks"]), confidence)


def _some(data: bytes) -> bytes:
    if not data:
        raise HttpRefusal(400, "the picture has no bytes")
    return data


def _unknown(what: str, name: str, known: Iterable[str]) -> HttpRefusal:
    return HttpRefusal(400, f"unknown {what} {shown(name)}{suggest(name[:100], known)}")
