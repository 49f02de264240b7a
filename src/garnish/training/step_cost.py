"""What a training step is expected to take, told before the first one where that is minutes or gigabytes.

Operations and the bytes kept for the backward pass are counted on tensors without values (torch's fake tensors) at the
pictures' own size. Time is at least that of so many operations of a matrix product, whose speed is measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.data.dataset import Dataset
from garnish.errors import one_line
from garnish.model.model import Model
from garnish.model.report import bytes_for_backward, flop_counter
from garnish.training.batch_size import IN_PASSING, available, optimizer_bytes
from garnish.training.train_options import TrainOptions
from garnish.training.undone_step import BegunStep

#: What is worth a line: bytes, and seconds.
_MUCH_BYTES, _LONG = 2e9, 60.0
#: Pixels of a step, and its multiply-accumulates if its parameters were a plain ViT's, below which it is small.
_MANY_PIXELS, _MUCH_WORK = 2e6, 1e11
#: Side of the matrices that are multiplied, and how often.
_SIDE, _TIMES = 768, 3
#: A step's operations over those of its forward pass: gradients of what is inside the trunk take as many again.
_BOTH_WAYS = 2


@final
@dataclass(frozen=True)
class StepCost:
    """Of one step of one process.

    Attributes:
        size: (H, W) of the pictures.
        memory_bytes: kept for the backward pass and passed through, gradients and moments; without the model.
        seconds: by the speed of a matrix product, which is seldom reached; None on accelerators.
    """

    size: tuple[int, int]
    memory_bytes: int
    seconds: float | None

    def line(self, bound: int) -> str:
        """One line where it is much (``bound``: bytes that there are), else ""."""
        long = self.seconds is not None and self.seconds >= _LONG
        if self.memory_bytes < min(_MUCH_BYTES, bound) and not long:
            return ""
        taken = [f"{self.memory_bytes / 1e9:.1f} GB beside the model"]
        if self.seconds is not None and self.seconds >= 1:
            taken.append(f"{self.seconds / 60:.0f} minutes" if long else f"{self.seconds:.0f} seconds")
        over = f", more than the {bound / 1e9:.1f} GB that may be used" if self.memory_bytes > bound else ""
        height, width = self.size
        return (
            f"a step on pictures of {height} × {width} is expected to take about {' and '.join(taken)}{over}; for less,"
            " train on a part of each (train.augment.size), or on fewer (train.batch_size)"
        )


def about_step(model: Model, train: Dataset, options: TrainOptions, batch_size: int, trained: Iterable[Tensor]) -> str:
    """The line on a step of these pictures; empty where it is small, or nothing was to be read before training."""
    if not options.check_pictures or options.cache is not None or model.is_compiled:
        return ""
    sample = train[0]
    if options.augment is not None:
        sample = options.augment(sample, (options.seed, 0, 0))
    pixels = batch_size * math.prod(sample.size)
    if pixels < _MANY_PIXELS and pixels / 256 * sum(p.numel() for p in model.parameters()) < _MUCH_WORK:
        return ""
    try:
        cost = step_cost(model, batch_size, sample.size, optimizer_bytes(trained, 1))
    except Exception as error:  # of a module of somebody else's that looks at values, of which there are none
        return f"what a step takes cannot be foreseen ({one_line(error, 120)})"
    return cost.line(available(model.device))


def step_cost(model: Model, batch_size: int, size: tuple[int, int], kept: int) -> StepCost:
    """Count and measure; the model is left as it was.

    Args:
        model: in training mode.
        batch_size: pictures of a step.
        size: (H, W) of each.
        kept: bytes of gradients and optimizer state.
    """
    saved, work = counted(model, batch_size, size)
    seconds = _BOTH_WAYS * work / speed() if model.device.type == "cpu" else None
    return StepCost(size, int(saved * IN_PASSING) + kept, seconds)


def counted(model: Model, batch_size: int, size: tuple[int, int]) -> tuple[int, int]:
    """Bytes that a forward pass keeps for its backward pass, and its floating-point operations; nothing is computed."""
    begun = BegunStep(t for t in model.own_tensors().values() if not isinstance(t, nn.Parameter))
    begun.begin()  # counters of batch norms do count
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    held = [*model.parameters(), *model.buffers()]
    held += [fake.from_tensor(tensor) for tensor in held]  # either is what is kept
    with fake, flop_counter() as counter:
        images = torch.zeros(batch_size, 3, *size, device=model.device)
        # as a loss does, whose softmax or difference is as large as the output
        saved = bytes_for_backward(lambda: _total(model(images)), held)
    begun.undo()
    return saved, counter.get_total_flops()


def speed() -> float:
    """Floating-point operations a second of a matrix product on the CPU."""
    a = torch.ones(_SIDE, _SIDE)
    taken = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        a @ a
        taken.append(time.perf_counter() - start)
    return 2 * _SIDE**3 / min(taken)


def _total(outputs: dict[str, Tensor]) -> Tensor:
    return torch.stack([out.float().log_softmax(1).square().mean() for out in outputs.values()]).sum()
