"""``BundleRouter``: Ray Serve's choice of a replica for a request, by the bundles that the request names."""

from __future__ import annotations

from typing import Any, final

from garnish.serving.bundle_order import choices
from garnish.serving.carried import CarriedRequest

try:
    from ray.serve.request_router import RequestRouter
except ImportError:  # garnish.serving.ray says what to install; until then this file can still be imported
    RequestRouter = object


@final
class BundleRouter(RequestRouter):  # type: ignore[misc]  # Ray has no types for what is not installed
    """Sends a request where its bundles are warm, see :mod:`garnish.serving.bundle_order`."""

    def initialize_state(self, spread: int) -> None:
        """Take what the application gave for this router.

        Args:
            spread: requests at a replica beyond which the next one in a bundle's order takes some.
        """
        self._spread = spread

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Groups of replicas in the order to be tried; Serve takes of each the one with the fewest requests.

        Args:
            candidate_replicas: all that run.
            pending_request: whose first argument is a :class:`CarriedRequest`; None: Serve has none at hand.
        """
        given = pending_request.args[0] if pending_request is not None and pending_request.args else None
        bundles = given.bundles if isinstance(given, CarriedRequest) else ()
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # where all are full, wait before asking again
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        lengths = self.replica_queue_len_cache
        waiting = {name: lengths.get(replica.replica_id) or 0 for name, replica in by_name.items()}
        return [[by_name[name] for name in group] for group in choices(bundles, waiting, self._spread)]
