"""A connection to a Ray cluster, or to one of this machine that lives as long as a command."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import ModuleType

from garnish.errors import OptionError, one_line, shown
from garnish.output import logger

_log = logger(__name__)

#: What ``--on`` takes, for messages and help.
TAKEN = "ray for one of this machine, or ray://HOST:PORT, ray:auto for a cluster that runs"


def ray_address(on: str) -> str | None:
    """The address that ``--on`` names, as ``ray.init`` takes it; None: a cluster of this machine, made for the command.

    Raises:
        OptionError: it names no Ray.
    """
    if on == "ray":
        return None
    if on == "ray:auto":
        return "auto"
    if on.startswith("ray://") and len(on) > len("ray://"):
        return on
    raise OptionError(f"--on: {shown(on)} is unknown; write {TAKEN}")


@contextlib.contextmanager
def connected(on: str) -> Iterator[ModuleType]:
    """The module ``ray``, connected for a ``with`` block; a cluster made for it ends with it.

    Clusters with tokens are Ray's to open: it reads ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH`` or
    ``~/.ray/auth_token`` where ``RAY_AUTH_MODE`` is ``token``, and makes a token for a cluster of its own.

    Raises:
        OptionError: Ray is not installed, or the cluster cannot be reached.
    """
    address = ray_address(on)
    try:
        import ray
        from ray.exceptions import AuthenticationError
    except ImportError:
        raise OptionError(f"--on {on}: needs Ray; pip install 'garnish[ray]'") from None
    if ray.is_initialized():  # the caller's own, in a notebook or another driver
        yield ray
        return
    # "local": without an address Ray joins any cluster that it finds on this machine, or that RAY_ADDRESS names
    own = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    try:
        with _own_signals():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **own)
    except AuthenticationError as error:
        raise OptionError(
            f"--on {on}: the cluster wants another token ({one_line(error.message, 120)}); set RAY_AUTH_MODE=token, and"
            " RAY_AUTH_TOKEN_PATH to the file of its token"
        ) from None
    except Exception as error:  # Ray raises the bare class too, where its processes begin too slowly
        what = "cannot be started" if address is None else "cannot be reached"
        then = "look at memory and load of this machine" if address is None else "check address and token"
        raise OptionError(f"--on {on}: {what} ({one_line(error, 200)}); {then}") from None
    _log.warning("--on %s: new, and little tried on real clusters; docs/machines.md links what was tried", on)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what SIGTERM does here: ``ray.init`` would have it end the process with a code of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
