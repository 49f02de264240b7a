"""What a training step will take: memory and time, from a step on tensors without values.

The step (:mod:`garnish.planning.step`) is run under torch's fake tensors, which makes every operation that a real one
makes. Memory is the most that is alive at once; time is the sum over operations of what each takes on this machine
(:mod:`garnish.planning.op_times`), and of what passes between them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.adapters.lora import LoRA
from garnish.backbones.build import backbone
from garnish.model import Model, adapt
from garnish.planning.op_times import OpTimes, now
from garnish.planning.recording import Record, Recorder
from garnish.planning.step import TrainingStep
from garnish.tasks.semantic import Semantic

#: A trunk whose operations are so small that the time of a step is what passes between them.
_TINY = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
_RUNS = 7


@final
@dataclass(frozen=True)
class Prediction:
    """Of one training step.

    Attributes:
        memory_bytes: most bytes of tensors at once: parameters, batch, gradients, optimizer state, activations.
        step_seconds: of the step; of the processor where torch has one thread.
        operations: number of calls that were recorded, views included.
        step_flops: floating-point operations of matrix products and convolutions, forward and backward.
    """

    memory_bytes: int
    step_seconds: float
    operations: int
    step_flops: int


def record_step(make: Callable[[FakeTensorMode], Model], batch_size: int, size: tuple[int, int]) -> Record:
    """Record one training step of a model without values.

    Args:
        make: builds the model of fake tensors of the mode; called outside it.
        batch_size: pictures.
        size: (H, W) of each.
    """
    fake = FakeTensorMode()
    model = make(fake)
    with fake:
        step = TrainingStep(model, batch_size, size)
        with Recorder(step.tensors()) as recorder:
            step()
    return recorder.record


def predict_step(record: Record, times: OpTimes) -> Prediction:
    """Memory and time of a recorded step; operations that are not known yet are measured."""
    return Prediction(record.peak_bytes, times.of(record), record.number, record.flops)


def calibrated(device: torch.device | str = "cpu") -> OpTimes:
    """Times of operations that know what passes between them, from real steps of a tiny model: about a second."""
    times = OpTimes(device)
    with torch.random.fork_rng(devices=[]):
        model = adapt(backbone("mit_b0", options=_TINY), LoRA(rank=2), {"seg": Semantic(classes=2)}).to(device)
        step = TrainingStep(model, 1, (32, 32))
        step()
        with Recorder(step.tensors()) as recorder:
            step()
        taken = []
        for _ in range(_RUNS):
            start = now()
            step()
            taken.append(now() - start)
    times.learn(recorder.record, statistics.median(taken))
    return times
