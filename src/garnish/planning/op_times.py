"""How long single operations take on this machine.

Each kind of call is measured once, on tensors of its own with the shapes, strides and types of the call, and kept for
every further candidate that makes it.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from garnish.planning.arguments import Far, real_arguments
from garnish.planning.recording import Call, Record

#: Runs of each kind of call, at least and at most, and the seconds after which it is enough.
_LEAST, _MOST, _ENOUGH = 3, 50, 0.01
#: Bytes after which what was touched has left the caches, and its pages the tables of the processor.
FAR_BYTES = 2**26


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
        self.seconds: dict[Call, float] = {}
        self.around = 0.0
        self._far: Far | None = None

    def of(self, record: Record) -> float:
        """Seconds of all that was recorded."""
        return self.around * record.number + sum(self.one(call) * n for call, n in record.calls.items())

    def one(self, call: Call) -> float:
        """Seconds of one call; the median of a few runs."""
        if call not in self.seconds:
            with torch.no_grad():
                self.seconds[call] = self._measure(call)
        return self.seconds[call]

    def learn(self, record: Record, seconds: float) -> None:
        """Take what passes outside of operations from a step so small that all of it stays in the caches.

        Args:
            record: of the step.
            seconds: that it took.
        """
        with torch.no_grad():
            inside = sum(self._measure(call, warm=True) * n for call, n in record.calls.items())
        self.around = max(0.0, (seconds - inside) / record.number)

    def _measure(self, call: Call, *, warm: bool = False) -> float:
        """Seconds of a call; ``warm``: all that it touches is in the caches."""
        far = self._far_memory() if call.far and not warm and not call.op._schema.is_mutable else None
        args, kwargs = real_arguments(call, self.device, far)
        # what came out is kept until the memory it lies in has left the caches, for a step seldom writes where it just
        # wrote; it seldom gets memory afresh from the kernel either
        kept: deque[Any] = deque([call.op(*args, **kwargs)])
        most = 1 if warm else max(1, FAR_BYTES // max(_bytes_in(kept[0]), 1))
        taken: list[float] = []
        spent = 0.0
        while len(taken) < _LEAST or (spent < _ENOUGH and len(taken) < _MOST):
            if far is not None:
                args, kwargs = real_arguments(call, self.device, far)
            start = now()
            out = call.op(*args, **kwargs)
            taken.append(now() - start)
            spent += taken[-1]
            kept.append(out)
            if len(kept) > most:
                kept.popleft()
        return statistics.median(taken)

    def _far_memory(self) -> Far:
        if self._far is None:
            self._far = Far(FAR_BYTES, self.device)
        return self._far


def _bytes_in(out: Any) -> int:
    return sum(leaf.untyped_storage().nbytes() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
