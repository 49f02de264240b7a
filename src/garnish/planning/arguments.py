"""Tensors to measure a call with, made from what was recorded of its arguments."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from garnish.planning.recording import Call, Listed, Shaped

#: Operations whose second argument is a list of indices, one an axis.
_BY_AXIS = frozenset({"index", "index_put", "index_put_impl", "unsafe_index", "unsafe_index_put"})
#: Entries that parts begin at a multiple of, as memory does that torch allocates.
_ALIGNED = 16


@final
class Far:
    """Memory that is handed out part after part, round and round: each was last touched one round ago.

    Args:
        size: bytes; more than the processor's caches keep.
        device: where it lies.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._whole = torch.full((size // 4,), 0.5, device=device)
        self._next = 0

    def take(self, entries: int) -> Tensor:
        """(entries,) float32, to be read only."""
        if entries > self._whole.numel():
            return torch.full((entries,), 0.5, device=self._whole.device)
        if self._next + entries > self._whole.numel():
            self._next = 0
        part = self._whole[self._next : self._next + entries]
        self._next += -(-entries // _ALIGNED) * _ALIGNED
        return part


def real_arguments(call: Call, device: torch.device, far: Far | None = None) -> tuple[list[Any], dict[str, Any]]:
    """Arguments for a call: floats in (0, 1), whole numbers that are valid indices of what they index.

    Args:
        call: what was recorded.
        device: where the tensors go.
        far: where floats are taken from; memory of their own where left out, which the call may write to.
    """
    bound = _bound(call)

    def real(value: Any, bound: int) -> Any:
        if isinstance(value, Shaped):
            return _tensor(value, bound, device, far)
        if isinstance(value, Listed):
            return [real(entry, bound) for entry in value.entries]
        return device if isinstance(value, torch.device) else value

    args = [real(value, bound) for value in call.args]
    if _name(call) in _BY_AXIS:
        source, indices = call.args[0], call.args[1].entries
        args[1] = [real(entry, length) for entry, length in zip(indices, source.shape, strict=False)]
    return args, {name: real(value, bound) for name, value in call.kwargs}


def _name(call: Call) -> str:
    return str(call.op.overloadpacket.__name__).strip("_")


def _bound(call: Call) -> int:
    """What whole numbers in a call must be below to be indices: along an axis, or of any axis."""
    first = call.args[0] if call.args else None
    if len(call.args) > 2 and isinstance(first, Shaped) and first.shape:
        axis, index = call.args[1], call.args[2]
        if isinstance(axis, int) and isinstance(index, Shaped) and index.dtype == torch.int64:
            return max(1, first.shape[axis])
    lengths = [n for v in call.args if isinstance(v, Shaped) and v.dtype.is_floating_point for n in v.shape if n > 1]
    return min(lengths, default=2)


def _tensor(like: Shaped, bound: int, device: torch.device, far: Far | None) -> Tensor:
    if like.dtype == torch.float32 and far is not None:
        flat = far.take(like.entries)
    elif like.dtype.is_floating_point:
        flat = torch.empty(like.entries, dtype=like.dtype, device=device).uniform_(0.1, 1.0)
    elif like.dtype == torch.bool:
        flat = torch.arange(like.entries, device=device) % 3 > 0
    else:
        flat = (torch.arange(like.entries, device=device) % bound).to(like.dtype)
    return flat.as_strided(like.shape, like.stride, flat.storage_offset())
