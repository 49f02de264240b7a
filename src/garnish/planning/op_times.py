"""How long single operations take on this machine.

Each kind of call is measured once, on tensors of its own with the shapes, strides and types of the call, and kept for
every further candidate that makes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import time
from collections import deque
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from garnish.planning.recording import Call, Circumstances, Listed, Record, Shaped

#: Runs of each kind of call, at least and at most, and the seconds after which it is enough.
_LEAST, _MOST, _ENOUGH = 3, 50, 0.01
#: Bytes of arguments that push each other out of the caches near the processor.
_FAR_BYTES = 2**23
#: Operations whose second argument is a list of indices, one an axis.
_BY_AXIS = frozenset({"index", "index_put", "index_put_impl", "unsafe_index", "unsafe_index_put"})


def now() -> float:
    """Seconds of the processor where torch has one thread, so that other processes do not count; else by the clock."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


@final
class OpTimes:
    """Seconds of kinds of calls, measured when first asked for.

    Attributes:
        seconds: what is known so far.
        around: seconds a call, views included, that pass outside of operations: Python and autograd. 0 until
            :meth:`learn` has seen a step.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[tuple[Call, Circumstances], float] = {}
        self.around = 0.0

    def of(self, record: Record) -> float:
        """Seconds of all that was recorded."""
        return self.around * record.number + sum(self.one(*key) * n for key, n in record.calls.items())

    def learn(self, record: Record, seconds: float) -> None:
        """Take what passes outside of operations from something small that was recorded and took so many seconds."""
        self.around = 0.0
        self.around = max(0.0, (seconds - self.of(record)) / record.number)

    def one(self, call: Call, how: Circumstances) -> float:
        """Seconds of one call; the median of a few runs."""
        if (call, how) not in self.seconds:
            with torch.no_grad():
                self.seconds[call, how] = self._measure(call, how)
        return self.seconds[call, how]

    def _measure(self, call: Call, how: Circumstances) -> float:
        args, kwargs = real_arguments(call, self.device)
        size = _bytes_of(call)
        sets = [(args, kwargs)]
        if how.far:  # one set after the other, so that each has left the caches when its turn comes again
            count = min(_MOST, 1 + _FAR_BYTES // max(size, 1))
            sets += [real_arguments(call, self.device) for _ in range(count)]
        taken: list[float] = []
        # what came out is kept for as long as it takes for the memory it lay in to leave the caches, or for good
        kept: deque[Any] = deque([call.op(*args, **kwargs)])
        most = None if how.fresh else max(1, _FAR_BYTES // max(_bytes_in(kept[0]), 1))
        if how.fresh:
            give_back_memory()
        spent, number = 0.0, 0
        while number < _LEAST or (spent < _ENOUGH and number < _MOST):
            args, kwargs = sets[(number + 1) % len(sets)]
            start = now()
            out = call.op(*args, **kwargs)
            taken.append(now() - start)
            spent += taken[-1]
            number += 1
            kept.append(out)
            if most is not None and len(kept) > most:
                kept.popleft()
        return statistics.median(taken)


def give_back_memory() -> None:
    """Let glibc's malloc return to the kernel what is free; elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _bytes_in(out: Any) -> int:
    return sum(leaf.untyped_storage().nbytes() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))


def _bytes_of(call: Call) -> int:
    shaped = [v for v in (*call.args, *(v for _, v in call.kwargs)) if isinstance(v, Shaped)]
    shaped += [v for listed in call.args if isinstance(listed, Listed) for v in listed.entries if isinstance(v, Shaped)]
    return sum(v.entries * v.dtype.itemsize for v in shaped)


def real_arguments(call: Call, device: torch.device) -> tuple[list[Any], dict[str, Any]]:
    """Arguments for a call: floats in (0.1, 1), whole numbers that are valid indices of what they index."""
    bound = _bound(call)

    def real(value: Any, bound: int) -> Any:
        if isinstance(value, Shaped):
            return _tensor(value, bound, device)
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


def _tensor(like: Shaped, bound: int, device: torch.device) -> Tensor:
    if like.dtype.is_floating_point:
        flat = torch.empty(like.entries, dtype=like.dtype, device=device).uniform_(0.1, 1.0)
    elif like.dtype == torch.bool:
        flat = torch.arange(like.entries, device=device) % 3 > 0
    else:
        flat = (torch.arange(like.entries, device=device) % bound).to(like.dtype)
    return flat.as_strided(like.shape, like.stride)
