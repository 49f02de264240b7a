"""The state of torch that a function which runs again is to find as it was: autocasting and random generators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def is_on(self) -> bool:
        """Whether it is on for any device."""
        return any(enabled for enabled, _ in self.states.values())

    def of(self, tensor: object) -> torch.dtype | None:
        """The type that a product takes in place of a tensor's own; None if that stays."""
        if (
            not self.is_on
            or not isinstance(tensor, Tensor)
            or not tensor.requires_grad
            or tensor.dtype != torch.float32
        ):
            return None
        enabled, kind = self.states.get(tensor.device.type, (False, None))
        return kind if enabled else None

    def again(self) -> AbstractContextManager[object]:
        """A context with this state."""
        changes = [
            torch.autocast(device, dtype=kind, enabled=enabled)
            for device, (enabled, kind) in self.states.items()
            if enabled != torch.is_autocast_enabled(device)
        ]
        if not changes:
            return _AS_IT_IS
        with contextlib.ExitStack() as stack:
            for change in changes:
                stack.enter_context(change)
            return stack.pop_all()


#: A context that changes nothing.
_AS_IT_IS = contextlib.nullcontext()


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
