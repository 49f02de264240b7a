"""The server under Ray Serve: ``serve run garnish.serving.ray:app bundles=runs/a/best,runs/b/best replicas=2``.

Three deployments: doors take requests, read which bundles they name, and send them where these are warm; replicas hold
a trunk each and answer as ``garnish serve`` does; a ledger keeps the changes of bundles, which all replicas follow.
"""

from __future__ import annotations

from typing import Any

from garnish.errors import MissingExtraError

#: Requests that the ledger takes at a time: one of each replica, and those that change bundles.
_LEDGER_REQUESTS = 1000
#: Seconds between two looks at a replica, and that it has to end what it began.
_LOOK_SECONDS, _END_SECONDS = 2.0, 60.0


def app(args: dict[str, Any]) -> Any:
    """An application of Ray Serve.

    Args:
        args: name → word: ``bundles`` (``[NAME=]FOLDER`` or ``hub:user/name``, with commas), ``root`` (a folder of
            bundles), ``replicas``, ``spread``, ``doors``, ``cpus`` and ``gpus`` of a replica, and the options of
            ``garnish serve`` without their dashes (``memory``, ``token-file``, …), but host and port.

    Returns:
        The application, for ``serve.run`` and what names it.

    Raises:
        MissingExtraError: Ray Serve or the server's libraries are not installed. OptionError: an unknown argument, or
            a value out of bounds. BundleError: a bundle is damaged, of another trunk, or there is none.
    """
    from garnish.serving.installed import require_server

    require_server()
    try:
        from ray import serve
        from ray.serve.config import RequestRouterConfig
    except ImportError:
        raise MissingExtraError(
            "garnish.serving.ray needs Ray Serve, which is not installed; pip install 'garnish[serve,ray]'"
        ) from None
    from garnish.serving.change_ledger import ChangeLedger
    from garnish.serving.front_door import FrontDoor
    from garnish.serving.ray_args import read_args
    from garnish.serving.trunk_replica import TrunkReplica

    plan = read_args(args)
    looked_at = {"health_check_period_s": _LOOK_SECONDS, "graceful_shutdown_timeout_s": _END_SECONDS}
    ledger = serve.deployment(
        ChangeLedger,
        name="Ledger",
        num_replicas=1,
        max_ongoing_requests=_LEDGER_REQUESTS,
        ray_actor_options={"num_cpus": 0},
    ).bind(list(plan.serving.bundles), plan.start, _text(plan.serving.uploads), plan.serving.max_upload)
    replicas = serve.deployment(
        TrunkReplica,
        name="Replicas",
        num_replicas=plan.replicas,
        max_ongoing_requests=plan.settings.working,
        max_queued_requests=plan.replicas * plan.settings.working,
        ray_actor_options={"num_cpus": plan.cpus, "num_gpus": plan.gpus},
        request_router_config=RequestRouterConfig(
            request_router_class="garnish.serving.bundle_router:BundleRouter",
            request_router_kwargs={"spread": plan.spread},
        ),
        **looked_at,
    ).bind(plan, ledger)
    return serve.deployment(
        FrontDoor,
        name="Doors",
        num_replicas=plan.doors,
        max_ongoing_requests=plan.settings.reading,
        ray_actor_options={"num_cpus": 0},
        **looked_at,
    ).bind(replicas, ledger, plan.settings)


def _text(path: object) -> str | None:
    return None if path is None else str(path)
