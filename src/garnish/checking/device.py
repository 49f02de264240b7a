"""Checks that torch can use a named device on this machine."""

from __future__ import annotations

import torch

from garnish.errors import OptionError


def usable_device(name: str | torch.device, where: str) -> torch.device:
    """The device called ``name``; raises :class:`OptionError`, starting with ``where``, if torch cannot use it here."""
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):
        raise OptionError(
            f"{where} {name}: torch cannot use it here; choose cpu, or cuda where there is a GPU"
        ) from None
    return chosen
