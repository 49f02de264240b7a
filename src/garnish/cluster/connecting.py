"""A connection to a Ray cluster, or to one of this machine that lives as long as a command."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from garnish.errors import OptionError, one_line, shown

#: What ``--on`` takes, for messages and help.
TAKEN = "ray for one of this machine, or ray://HOST:PORT, ray:auto for a cluster that runs"
#: Where Ray takes its token from, for messages.
_TOKEN = "RAY_AUTH_MODE=token with RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


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


def check_ray(on: str) -> None:
    """Raise OptionError for what ``--on`` does not take, and where Ray is not installed; nothing is connected."""
    ray_address(on)
    if importlib.util.find_spec("ray") is None:
        raise _not_installed(on)


@contextlib.contextmanager
def connected(on: str) -> Iterator[ModuleType]:
    """The module ``ray``, connected for a ``with`` block; a cluster made for it ends with it.

    A cluster with token authentication takes the token of Ray's own settings (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``,
    ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``); for one of this machine Ray makes one. None passes through here.

    Raises:
        OptionError: Ray is not installed, or the cluster cannot be reached.
    """
    address = ray_address(on)
    try:
        import ray
    except ImportError:
        raise _not_installed(on) from None
    if ray.is_initialized():  # the caller's own, in a notebook or another driver
        yield ray
        return
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # "local" and not None, which would join a cluster that runs, by RAY_ADDRESS or by a file that it left
        settings |= {"address": "local", "include_dashboard": False}
    else:
        settings |= {"address": address}
    try:
        ray.init(**settings)
    except Exception as error:  # Ray raises its own, ConnectionError, RuntimeError, and bare ones for a slow start
        raise OptionError(
            f"--on {on}: cannot be reached ({one_line(error, 150)}); check the address, and the token ({_TOKEN})"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _not_installed(on: str) -> OptionError:
    return OptionError(f"--on {on}: needs Ray; pip install 'garnish[ray]'")
