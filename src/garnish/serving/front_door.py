"""``FrontDoor``: takes requests of HTTP under Ray Serve, reads which bundles they name, and sends them to a replica.

A body has to be read for the bundles that it names, as fields of a form or keys of JSON. So the door has it whole, and
can send it again where a replica dies with it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, final

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from garnish.errors import GarnishError
from garnish.output import logger
from garnish.serving.carried import CarriedAnswer, CarriedRequest, carried_request
from garnish.serving.guard import ALWAYS
from garnish.serving.http_refusals import headers_of, status_of
from garnish.serving.joined_metrics import joined_metrics
from garnish.serving.refusals import Busy
from garnish.serving.request_reading import HeldBytes
from garnish.serving.settings import ServerSettings

_log = logger(__name__)

#: How often a request is sent that dies with a replica; seconds that it may take beside its deadline; seconds in which
#: replicas tell their metrics; bytes of a body beyond which it is looked through by a thread.
_TRIES, _BESIDE_SECONDS, _METRICS_SECONDS, _LARGE = 3, 90.0, 5.0, 65_536


@final
class FrontDoor:
    """A deployment of Ray Serve, the one that its proxies know.

    Args:
        replicas: a handle of :class:`garnish.serving.trunk_replica.TrunkReplica`.
        ledger: of :class:`garnish.serving.change_ledger.ChangeLedger`.
        settings: bounds of bodies and of time; the token is the replicas' to compare.
    """

    def __init__(self, replicas: Any, ledger: Any, settings: ServerSettings) -> None:
        self._replicas, self._ledger = replicas, ledger
        self._settings = replace(settings, token=None)
        self._held = HeldBytes(settings)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "").rstrip("/"))
        try:
            if path == "/health" and request.method in ("GET", "HEAD"):
                return JSONResponse({"alive": True}, headers=dict(ALWAYS))
            if path == "/metrics" and request.method == "GET":
                return await self._metrics()
            return await self._passed(request)
        except GarnishError as error:
            headers = {**ALWAYS, **headers_of(error)}
            return JSONResponse({"error": str(error)}, status_of(error), headers)

    async def _passed(self, request: Request) -> Response:
        body = await self._held.read(request)
        try:
            if len(body) > _LARGE:
                carried = await asyncio.to_thread(carried_request, request, body, self._settings)
            else:
                carried = carried_request(request, body, self._settings)
            answer = await self._answered(carried)
        finally:
            self._held.give_back(len(body))
        made = Response(answer.body, answer.status)
        made.raw_headers = list(answer.headers)
        return made

    async def _answered(self, carried: CarriedRequest) -> CarriedAnswer:
        """A replica's answer; where it died, and the request changes nothing, another's."""
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError

        try:
            async with asyncio.timeout(self._settings.deadline + _BESIDE_SECONDS):
                for attempt in range(1, _TRIES + 1):
                    try:
                        answer: CarriedAnswer = await self._replicas.answer.remote(carried)
                        return answer
                    except (RayActorError, ReplicaUnavailableError) as error:
                        _log.warning("a replica died with a request (%s), try %d", type(error).__name__, attempt)
                        if carried.is_change:
                            raise Busy("the replica that made the change died; see GET /v1/bundles for it", 1) from None
        except TimeoutError:
            raise Busy("no replica answered in time; ask again", 5) from None
        except BackPressureError:
            raise Busy("the queue is full; ask again", 1) from None
        raise Busy(f"{_TRIES} replicas died with this request", 5)

    async def _metrics(self) -> Response:
        texts = await self._ledger.metrics.remote(_METRICS_SECONDS)
        headers = {**ALWAYS, "Content-Type": CONTENT_TYPE_LATEST}
        return Response(await asyncio.to_thread(joined_metrics, texts), headers=headers)
