"""What one call of a torch function costs more where it is noted how its output was made (docs/memory.md).

    OMP_NUM_THREADS=1 python benchmarks/training/calls.py

Tensors are so small that nothing but calling takes time. ``gelu`` is noted, ``linear`` is looked at and left alone.
Processor time of the thread, plain and noted in turn, median and range of the differences.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from garnish.engine.remaking import Remaking

CALLS, ROUNDS = 3000, 15


def microseconds(call: Callable[[], Tensor], context: AbstractContextManager[object]) -> float:
    """Of one call."""
    with context:
        start = time.thread_time()
        for _ in range(CALLS):
            call()
        return (time.thread_time() - start) / CALLS * 1e6


def run() -> None:
    """Measure and print both."""
    torch.set_num_threads(1)
    x, weight = torch.randn(8, 8, requires_grad=True), torch.randn(8, 8)
    for name, call in (("gelu", lambda: F.gelu(x)), ("linear", lambda: F.linear(x, weight))):
        plain, more = [], []
        for number in range(-1, ROUNDS):
            first = microseconds(call, nullcontext())
            second = microseconds(call, Remaking())
            if number >= 0:
                plain.append(first)
                more.append(second - first)
        middle = statistics.median(more)
        print(
            f"{name}: {statistics.median(plain):.1f} µs, noted {middle:.1f} more ({min(more):.1f} to {max(more):.1f})"
        )


if __name__ == "__main__":
    run()
