"""The state of torch that a function which runs again is to find as it was: autocasting and random generators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Autocast:
    """The state of autocasting by type of device: whether it is on, and to which type."""

    states: Mapping[str, tuple[bool, torch.dtype]]

    @classmethod
    def now(cls) -> Autocast:
        """The state of this thread."""
        kinds = dict.fromkeys(("cpu", _accelerator()))
        return cls({kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds})

    def of(self, tensor: object) -> torch.dtype | None:
        """The type that a product takes in place of a tensor's own; None if that stays."""
        if not isinstance(tensor, Tensor) or not tensor.requires_grad or tensor.dtype != torch.float32:
            return None
        enabled, kind = self.states.get(tensor.device.type, (False, None))
        return kind if enabled else None

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """A context with this state."""
        with contextlib.ExitStack() as stack:
            for device, (enabled, kind) in self.states.items():
                if enabled != torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, dtype=kind, enabled=enabled))
            yield


@final
@dataclass(frozen=True)
class Draws:
    """The state of the random generators of the CPU and of one device."""

    cpu: Tensor
    device: torch.device
    own: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> Draws:
        """The state of now."""
        own = None
        if device.type not in ("cpu", "meta"):
            own = torch.get_device_module(device.type).get_rng_state(device)
        return cls(torch.get_rng_state(), device, own)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """A context with this state, after which the generators are as they were before it."""
        former = Draws.now(self.device)
        self._set()
        try:
            yield
        finally:
            former._set()

    def _set(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.own is not None:
            torch.get_device_module(self.device.type).set_rng_state(self.own, self.device)


def _accelerator() -> str:
    """The type of the accelerator that torch sees; "cuda" if none."""
    found = torch.accelerator.current_accelerator()
    return "cuda" if found is None else found.type
