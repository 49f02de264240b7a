"""``POST /v1/predict``: the request read, worked on by a thread, and answered as its ``Accept`` says."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import final

from starlette.requests import Request
from starlette.responses import Response

from garnish.serving.accepting import acceptable
from garnish.serving.answers import TYPES, EncodedAnswer, encoded_answer
from garnish.serving.asked import Ticket
from garnish.serving.metrics import STAGES
from garnish.serving.refusals import Busy
from garnish.serving.request_reading import HeldBytes, read_asked
from garnish.serving.settings import ServerSettings
from garnish.serving.warming import Predicting
from garnish.serving.watched import Lifecycle, RequestRecord, record_of


@final
class PredictRoute:
    """Answers predictions.

    Args:
        service: predicts; many threads call it.
        settings: bounds.
        held: reads bodies.
        lifecycle: whether new work is taken.
    """

    def __init__(self, service: Predicting, settings: ServerSettings, held: HeldBytes, lifecycle: Lifecycle) -> None:
        self._service, self._settings, self._held, self._lifecycle = service, settings, held, lifecycle
        self._working = 0
        self._threads = ThreadPoolExecutor(settings.working, thread_name_prefix="garnish-request")

    async def answer(self, request: Request) -> Response:
        """Predict."""
        if self._lifecycle.stopping:
            raise Busy("the server is stopping; ask again, or another", 5)
        if self._working >= self._settings.working:
            raise Busy(f"{self._working} requests are worked on, as many as the server takes; ask again", 1)
        kinds = acceptable(request.headers.get("accept", ""), TYPES)
        body = await self._held.read(request)
        count = len(body)
        record = record_of(request.scope)
        record.taken = count
        if self._working >= self._settings.working:
            self._held.give_back(count)
            raise Busy(f"{self._working} requests are worked on, as many as the server takes; ask again", 1)
        ticket = Ticket(time.monotonic() + self._settings.deadline, timings=record.timings)
        self._working += 1
        leaving = asyncio.create_task(_noticed(request, ticket))
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, self._encoded, body, request, kinds, ticket, record
            )
            del body
            made = await asyncio.shield(work)
        finally:
            leaving.cancel()
            self._working -= 1
            self._held.give_back(count)
        timing = ", ".join(f"{stage};dur={ticket.timings[stage]:.1f}" for stage in STAGES if stage in ticket.timings)
        return _response(made, timing)

    def _encoded(
        self, body: bytes, request: Request, kinds: list[str], ticket: Ticket, record: RequestRecord
    ) -> EncodedAnswer:
        data, asking = read_asked(body, request.headers, request.query_params.multi_items(), self._settings)
        del body
        record.bundles = asking.bundles
        answer = self._service.predict(data, asking, ticket)
        record.bundles = list(answer.predictions)
        return encoded_answer(answer, kinds, ticket)

    def close(self) -> None:
        """End the threads, which have nothing to do any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _noticed(request: Request, ticket: Ticket) -> None:
    """Set ``ticket.gone`` when the client goes away; nothing else can come once the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ticket.gone.set()


def _response(made: EncodedAnswer, timing: str) -> Response:
    headers = {**made.headers, "Server-Timing": timing, "Vary": "Accept"}
    return Response(b"".join(made.data), media_type=made.content_type, headers=headers)
