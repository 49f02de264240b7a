"""The expected memory and time of a training step, reported before the first one if they are large.

Operations and bytes are counted on torch's fake tensors at the pictures' own size. The time is a lower bound: the
operations over the measured speed of a matrix product.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.checking.recording import Recorder
from garnish.data.dataset import Dataset
from garnish.errors import one_line
from garnish.model.model import Model
from garnish.model.report import flop_counter
from garnish.training.batch_size import available
from garnish.training.simulated_step import without_values
from garnish.training.train_options import TrainOptions

#: Bytes and seconds from which a line is printed.
_MUCH_BYTES, _LONG = 2e9, 60.0
#: A step with fewer pixels, and fewer MACs (estimated as for a plain ViT of as many parameters), is not counted.
_MANY_PIXELS, _MUCH_WORK = 2e6, 1e11
#: Side of the matrices that are multiplied to measure speed, and number of repetitions.
_SIDE, _TIMES = 768, 3
#: Operations of a step over those of its forward pass: gradients of activations take as many again.
_BOTH_WAYS = 2


@final
@dataclass(frozen=True)
class StepCost:
    """The cost of one step of one process.

    Attributes:
        size: (H, W) of the pictures.
        memory_bytes: most at once, of pictures, activations, gradients and moments; without the model.
        seconds: at the speed of a matrix product, a lower bound; None on accelerators.
    """

    size: tuple[int, int]
    memory_bytes: int
    seconds: float | None

    def line(self, bound: int) -> str:
        """One line if the cost is large (``bound``: available bytes), else ""."""
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
    """The line on a step of these pictures; empty if the cost is small, or no picture may be read before training."""
    if not options.check_pictures or options.cache is not None or model.is_compiled:
        return ""
    sample = train[0]
    if options.augment is not None:
        sample = options.augment(sample, (options.seed, 0, 0))
    pixels = batch_size * math.prod(sample.size)
    if pixels < _MANY_PIXELS and pixels / 256 * sum(p.numel() for p in model.parameters()) < _MUCH_WORK:
        return ""
    try:
        cost = step_cost(model, batch_size, sample.size, 2 * sum(tensor.nbytes for tensor in trained))
    except Exception as error:  # e.g. a user's module that reads values, which fake tensors lack
        return f"the cost of a step cannot be predicted ({one_line(error, 120)})"
    return cost.line(available(model.device))


def step_cost(model: Model, batch_size: int, size: tuple[int, int], kept: int) -> StepCost:
    """Count memory and operations, and measure speed; the model is left unchanged.

    Args:
        model: in training mode.
        batch_size: pictures of a step.
        size: (H, W) of each.
        kept: bytes of the optimizer's state.
    """
    taken, work = counted(model, batch_size, size)
    seconds = _BOTH_WAYS * work / speed() if model.device.type == "cpu" else None
    return StepCost(size, taken + kept, seconds)


def counted(model: Model, batch_size: int, size: tuple[int, int]) -> tuple[int, int]:
    """Most bytes that forward and backward pass hold at once, and the forward pass's floating-point operations."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    copied = without_values(model, fake)
    with torch.random.fork_rng(devices=[]), fake, Recorder([*copied.parameters(), *copied.buffers()]) as recorder:
        with flop_counter() as counter:
            outputs: dict[str, torch.Tensor] = {}
            for bands, names in copied.served.by_bands(copied.tasks):
                outputs |= copied(torch.zeros(batch_size, len(bands.names), *size, device=model.device), names)
        loss = _total(outputs)
        del outputs
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
    return recorder.peak_bytes - recorder.start_bytes, counter.get_total_flops()


def speed() -> float:
    """Floating-point operations per second of a matrix product on the CPU."""
    a = torch.ones(_SIDE, _SIDE)
    taken = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        a @ a
        taken.append(time.perf_counter() - start)
    return 2 * _SIDE**3 / min(taken)


def _total(outputs: dict[str, Tensor]) -> Tensor:
    """A stand-in for the loss, which keeps a softmax or difference as large as the output."""
    return torch.stack([out.float().log_softmax(1).square().mean() for out in outputs.values()]).sum()
