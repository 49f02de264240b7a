"""A connection to a Ray cluster, or to one of this machine that lives as long as a command."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from types import ModuleType

from garnish.errors import OptionError, one_line, shown

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

    Raises:
        OptionError: Ray is not installed, or the cluster cannot be reached.
    """
    address = ray_address(on)
    try:
        import ray
    except ImportError:
        raise OptionError(f"--on {on}: needs Ray; pip install 'garnish[ray]'") from None
    if ray.is_initialized():  # the caller's own, in a notebook or another driver
        yield ray
        return
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False) if (
            address is None
        ) else ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise OptionError(f"--on {on}: cannot be reached ({one_line(error, 200)}); check address and token") from None
    try:
        yield ray
    finally:
        ray.shutdown()
