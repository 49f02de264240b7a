"""The HTTP application over a service and a store of bundles: routes, and what wraps them."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, final

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from garnish.checking.plain_data import Json
from garnish.errors import one_line, shown
from garnish.output import logger
from garnish.serving.bundle_routes import BundleRoutes, ChangingStore, no_query, told
from garnish.serving.guard import Guard, Headed
from garnish.serving.metrics import BundleCounts, ServerMetrics
from garnish.serving.openapi import openapi
from garnish.serving.predict_route import PredictRoute
from garnish.serving.refusals import Busy
from garnish.serving.request_reading import HeldBytes
from garnish.serving.settings import ServerSettings
from garnish.serving.warming import Bundles, Predicting, warm
from garnish.serving.watched import Lifecycle, WatchedRequests, record_of

_log = logger(__name__)

Answering = Callable[[Request], Awaitable[Response]]


class ServedStore(ChangingStore, Bundles, Protocol):
    """What the application needs of a store."""

    def counts(self) -> BundleCounts:
        """For metrics."""


@final
class ServerParts:
    """What an application has beside its routes, as ``app.state.parts``.

    Attributes:
        lifecycle: whether it is ready, and stopping.
        metrics: its counts, which observe a batcher's passes.
        trunk: facts of the backbone.
    """

    def __init__(self, metrics: ServerMetrics, trunk: Mapping[str, Json]) -> None:
        self.lifecycle, self.metrics, self.trunk = Lifecycle(), metrics, trunk


def make_app(
    service: Predicting,
    store: ServedStore,
    settings: ServerSettings,
    *,
    trunk: Mapping[str, Json] | None = None,
    queued: Callable[[], int] = lambda: 0,
) -> Starlette:
    """The application.

    Args:
        service: predicts; its threads are not ended by the application.
        store: of the bundles.
        settings: bounds and rights.
        trunk: facts of the backbone, for people.
        queued: rows that wait, for metrics.
    """
    parts = ServerParts(ServerMetrics(store.counts, queued), trunk or {})
    lifecycle, held = parts.lifecycle, HeldBytes(settings)
    bundles, predict = (
        BundleRoutes(store, parts.trunk, settings, held),
        PredictRoute(service, settings, held, lifecycle),
    )

    async def health(request: Request) -> Response:
        return JSONResponse({"alive": True})

    async def ready(request: Request) -> Response:
        if lifecycle.stopping or lifecycle.unready:
            raise Busy("the server is stopping" if lifecycle.stopping else f"not ready: {lifecycle.unready}", 1)
        return JSONResponse({"ready": True})

    async def metrics(request: Request) -> Response:
        return Response(await run_in_threadpool(parts.metrics.text), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def described(request: Request) -> Response:
        no_query(request)
        return told(openapi(settings))

    @asynccontextmanager
    async def alive(app: Starlette) -> AsyncIterator[None]:
        warming = asyncio.create_task(_warm(service, store, lifecycle))
        yield
        warming.cancel()
        predict.close()

    routes = [
        _route("/v1/predict", "POST", predict.answer),
        _route("/v1/bundles", "GET", bundles.listed),
        _route("/v1/bundles/{name}", "GET", bundles.about),
        _route("/v1/bundles/{name}", "PUT", _while_running(lifecycle, bundles.put)),
        _route("/v1/bundles/{name}", "DELETE", _while_running(lifecycle, bundles.remove)),
        _route("/health", "GET", health),
        _route("/ready", "GET", ready),
        _route("/metrics", "GET", metrics),
        _route("/openapi.json", "GET", described),
        *_page_routes(),
    ]
    wrapped = [
        Middleware(Headed),
        Middleware(WatchedRequests, metrics=parts.metrics, lifecycle=lifecycle, token=settings.token),
        Middleware(Guard, settings=settings),
    ]
    app = Starlette(
        routes=_joined(routes), middleware=wrapped, lifespan=alive, exception_handlers={HTTPException: _odd_route}
    )
    app.router.redirect_slashes = False
    app.state.parts = parts
    return app


async def _warm(service: Predicting, store: Bundles, lifecycle: Lifecycle) -> None:
    try:
        await run_in_threadpool(warm, service, store)
    except Exception as error:
        lifecycle.unready = one_line(f"the first pass failed ({type(error).__name__}); see the log", 200)
        _log.exception("the first pass failed")
    else:
        lifecycle.unready = ""


def _route(path: str, method: str, answer: Answering, called: str | None = None) -> tuple[str, str, Answering]:
    """A route, and what metrics and log lines call it: its path, or one name for many."""

    async def noted(request: Request) -> Response:
        record_of(request.scope).route = called or path
        return await answer(request)

    return path, method, noted


def _joined(routes: list[tuple[str, str, Answering]]) -> list[Route]:
    """One route a path, for Starlette looks no further than the first path that fits."""
    paths: dict[str, dict[str, Answering]] = {}
    for path, method, answer in routes:
        paths.setdefault(path, {})[method] = answer

    def of(answers: dict[str, Answering]) -> Answering:
        async def answered(request: Request) -> Response:
            return await answers["GET" if request.method == "HEAD" else request.method](request)

        return answered

    return [Route(path, of(answers), methods=list(answers)) for path, answers in paths.items()]


def _while_running(lifecycle: Lifecycle, answer: Answering) -> Answering:
    async def checked(request: Request) -> Response:
        if lifecycle.stopping:
            raise Busy("the server is stopping; ask again, or another", 5)
        return await answer(request)

    return checked


def _page_routes() -> list[tuple[str, str, Answering]]:
    """The page and its files, which are read once."""
    files: dict[str, tuple[bytes, str]] = importlib.import_module("garnish.serving.page_files").page_files()

    def of(data: bytes, media_type: str) -> Answering:
        async def answer(request: Request) -> Response:
            return Response(data, headers={"Content-Type": media_type, "Cache-Control": "no-cache"})

        return answer

    found = [_route(f"/{name}", "GET", of(*file), "page") for name, file in files.items() if name != "index.html"]
    return [*found, _route("/", "GET", of(*files["index.html"]))] if "index.html" in files else found


async def _odd_route(request: Request, error: Exception) -> Response:
    """404, 405 and what else Starlette refuses, as JSON."""
    assert isinstance(error, HTTPException)
    path, taken = shown(request.url.path), (error.headers or {}).get("Allow", "other methods")
    told_of: dict[int, Any] = {
        404: f"there is nothing at {path}; /openapi.json lists what there is",
        405: f"{path} takes {taken}, not {shown(request.method)}",
    }
    line = record_of(request.scope).error = told_of.get(error.status_code, one_line(error.detail))
    return JSONResponse({"error": line}, error.status_code, error.headers)
