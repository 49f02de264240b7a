"""``/v1/bundles``: what is served, and, for who has the token, other bundles, from an upload or a folder."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Protocol, final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from garnish.checking.plain_data import Json
from garnish.errors import one_line, shown, suggest
from garnish.registry import plain
from garnish.serving.http_refusals import HttpRefusal
from garnish.serving.multipart_form import read_form
from garnish.serving.request_reading import HeldBytes, content_type_of, read_json_body
from garnish.serving.settings import ServerSettings
from garnish.serving.watched import record_of

#: Files of a bundle, which are the parts of an upload; and the one that may come with them.
FILES = ("bundle.json", "weights.safetensors")
_SUMS = "SHA256SUMS"


class ChangingStore(Protocol):
    """What these routes need of a store."""

    def names(self) -> tuple[str, ...]:
        """Of all bundles, sorted."""

    def about(self, name: str) -> dict[str, Json]:
        """Facts of one; raises UnknownBundle."""

    def put(self, name: str, files: Mapping[str, bytes]) -> dict[str, Json]:
        """Of an upload; raises BundleError."""

    def put_from(self, name: str, folder_name: str) -> dict[str, Json]:
        """Of a folder below the store's own; raises BundleError."""

    def remove(self, name: str) -> None:
        """Forget one; raises UnknownBundle."""


@final
class BundleRoutes:
    """Answers about bundles.

    Args:
        store: of them.
        trunk: facts of the backbone that they belong to.
        settings: bounds, and the token.
        held: reads bodies.
    """

    def __init__(
        self, store: ChangingStore, trunk: Mapping[str, Json], settings: ServerSettings, held: HeldBytes
    ) -> None:
        self._store, self._trunk, self._settings, self._held = store, trunk, settings, held

    async def listed(self, request: Request) -> Response:
        """Names, and the trunk."""
        no_query(request)
        names = await run_in_threadpool(self._store.names)
        return told({"trunk": dict(self._trunk), "bundles": list(names)})

    async def about(self, request: Request) -> Response:
        """Facts of one."""
        no_query(request)
        return told(await run_in_threadpool(self._store.about, _name(request)))

    async def put(self, request: Request) -> Response:
        """A new one, or another of the same name."""
        self._check_token(request)
        no_query(request)
        name = _name(request)
        body = await self._held.read(request)
        record_of(request.scope).taken = len(body)
        try:
            return await run_in_threadpool(self._put, name, body, request.headers)
        finally:
            self._held.give_back(len(body))

    def _put(self, name: str, body: bytes, headers: Mapping[str, str]) -> Response:
        is_new, kind = name not in self._store.names(), content_type_of(headers)
        if kind == "multipart/form-data":
            facts = self._store.put(name, self._files(body, headers["content-type"]))
        elif kind == "application/json":
            facts = self._store.put_from(name, _folder(body))
        else:
            raise HttpRefusal(415, f"Content-Type {shown(kind)} is not taken; send multipart/form-data, or JSON")
        return told(facts, 201 if is_new else 200)

    def _files(self, body: bytes, content_type: str) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for part in read_form(body, content_type, self._settings.parts):
            if part.name not in (*FILES, _SUMS):
                raise HttpRefusal(400, f"unknown form field {shown(part.name)}{suggest(part.name[:100], FILES)}")
            if part.name in files:
                raise HttpRefusal(400, f"form field {part.name} is given twice; give it once")
            files[part.name] = part.data
        if lacking := [name for name in FILES if name not in files]:
            raise HttpRefusal(400, f"the form lacks {' and '.join(lacking)}; send both files of a bundle")
        return files

    async def remove(self, request: Request) -> Response:
        """Forget one."""
        self._check_token(request)
        no_query(request)
        await run_in_threadpool(self._store.remove, _name(request))
        return Response(status_code=204)

    def _check_token(self, request: Request) -> None:
        """Raise HttpRefusal unless the request has the token; comparing takes as long whatever it says."""
        token = self._settings.token
        if token is None:
            raise HttpRefusal(403, "bundles cannot be changed: the server was started without --token-file")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8"), token.encode("utf-8"))
        if not (right and scheme.lower() == "bearer"):
            what = "is not the server's" if given else "is missing"
            raise HttpRefusal(401, f"Authorization: Bearer TOKEN {what}", {"WWW-Authenticate": "Bearer"})


def told(facts: Mapping[str, Json], status: int = 200) -> JSONResponse:
    """Facts as JSON; numbers that it has not are null."""
    return JSONResponse(plain(facts, finite=True), status)


def no_query(request: Request) -> None:
    """Raise HttpRefusal where an address has a query that means nothing."""
    for name in request.query_params:
        raise HttpRefusal(400, f"query: {shown(name)} is not known here; leave it out")


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    record_of(request.scope).bundles = [one_line(name, 100)]
    return name


def _folder(body: bytes) -> str:
    asked = read_json_body(body)
    for key in asked:
        if key != "from":
            raise HttpRefusal(400, f"unknown key {shown(key)}{suggest(key[:100], ['from'])}")
    if not isinstance(asked.get("from"), str):
        raise HttpRefusal(400, 'key from: expected the name of a folder below --bundles, as in {"from": "street"}')
    name: str = asked["from"]
    return name
