"""``TrunkReplica``: one process with a trunk under Ray Serve, in which the application of ``garnish serve`` answers."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from garnish.output import logger
from garnish.serving.app import make_app
from garnish.serving.carried import CarriedAnswer, CarriedRequest, CarriedRequests
from garnish.serving.json_logs import logging_lines
from garnish.serving.rare_collections import collecting
from garnish.serving.ray_args import RayPlan
from garnish.serving.shared_store import SharedStore
from garnish.serving.starting import start_serving
from garnish.serving.warming import warm

_log = logger(__name__)


@final
class TrunkReplica:
    """A deployment of Ray Serve: reads trunk and bundles, follows the changes so far, and then takes requests.

    Args:
        plan: what is served.
        ledger: a handle of :class:`garnish.serving.change_ledger.ChangeLedger`.
        name: of this replica; None: as Serve calls it.

    Raises:
        GarnishError: what is served cannot be, on this machine; Serve tells it, and tries again.
    """

    def __init__(self, plan: RayPlan, ledger: Any, name: str | None = None) -> None:
        import ray
        from ray import serve

        self._end = ExitStack()
        self._end.enter_context(logging_lines(as_json=plan.as_json))
        uploads = Path(self._end.enter_context(tempfile.TemporaryDirectory(prefix="garnish-replica-")))
        serving = replace(plan.here(), uploads=uploads if plan.changing else None)
        started = start_serving(serving)
        self._end.callback(started.close)
        batcher = started.batcher
        self._store = SharedStore(
            started.store,
            ledger,
            name or serve.get_replica_context().replica_id.unique_id,
            ray.get_runtime_context().current_actor,
            lambda: self._app.state.parts.metrics.text().decode(),
        )
        self._end.callback(self._store.close)
        self._app = make_app(
            started.service,
            self._store,
            plan.settings,
            trunk=started.engine.trunk,
            queued=lambda: batcher.counts().queued,
        )
        batcher.observers.append(self._app.state.parts.metrics)
        with ThreadPoolExecutor(1) as thread:  # Serve runs this in a loop, where a handle cannot be waited for
            thread.submit(self._store.catch_up).result()
        warm(started.service, self._store)  # before Serve sends requests here
        self._end.enter_context(collecting())
        self._requests = CarriedRequests(self._app)
        self._alive: AsyncExitStack | None = None
        self._starting = asyncio.Lock()
        threading.Thread(target=self._store.follow, name="garnish-follower", daemon=True).start()

    async def answer(self, carried: CarriedRequest) -> CarriedAnswer:
        """Answer a request that came to another process."""
        await self._begin()
        return await self._requests.answer(carried)

    async def check_health(self) -> None:
        """Raise RuntimeError where this replica no longer has the bundles that the others have; Serve replaces it."""
        if self._store.torn:
            raise RuntimeError(self._store.torn)
        await self._begin()

    async def _begin(self) -> None:
        """Begin the application's life in the loop that answers."""
        async with self._starting:
            if self._alive is None:
                self._alive = AsyncExitStack()
                await self._alive.enter_async_context(self._app.router.lifespan_context(self._app))

    def __del__(self) -> None:
        """Serve calls it when everything that was accepted is answered."""
        if (end := getattr(self, "_end", None)) is not None:
            end.close()
