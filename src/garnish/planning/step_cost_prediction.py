"""What a training step will take: memory and time, from a step on tensors without values.

The step (:mod:`garnish.planning.example_step`) is run under torch's fake tensors, which makes every operation that a
real one makes. Memory is the most that is alive at once; time is the sum over operations of what each takes on this
machine (:mod:`garnish.planning.op_times`), and of what passes between them.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.adapters.lora import LoRA
from garnish.backbones.build import backbone
from garnish.engine.adapter import Method
from garnish.model.model import Model, adapt
from garnish.model.report import count_macs
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep
from garnish.planning.op_times import OpTimes, now
from garnish.planning.recording import Record, Recorder
from garnish.tasks.semantic import Semantic

#: Memory that a process needs for its tensors, over what they hold. glibc's malloc keeps what lies free between blocks
#: that are in use: 15 to 36 % in the cases of benchmarks/plan; 1 to 6 % where it is told to give all back at once.
KEPT = 1.2
#: A trunk whose operations are so small that the time of a step is what passes between them.
_TINY = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
_RUNS = 7


@final
@dataclass(frozen=True)
class Prediction:
    """Of one training step.

    Attributes:
        tensor_bytes: most bytes of tensors at once: parameters, batch, gradients, optimizer state, activations; exact.
        step_seconds: of the step; of the processor where torch has one thread.
        operations: number of calls that were recorded, views included.
        macs: multiply-accumulates of one picture with all tasks, without training; exact.
    """

    tensor_bytes: int
    step_seconds: float
    operations: int
    macs: int

    @property
    def memory_bytes(self) -> int:
        """What the process needs for them."""
        return round(KEPT * self.tensor_bytes)


def predict(setting: Setting, method: Method, times: OpTimes) -> Prediction:
    """Memory, time and operations of a method; operations that are not known yet are measured.

    Args:
        setting: backbone, tasks, heads and batch.
        method: as for :func:`garnish.adapt`.
        times: of the device that the step would run on.
    """
    fake = FakeTensorMode()
    bare = setting.trunk.to_run(fake, times.device)
    with fake:
        model = adapt(bare, method, setting.tasks, setting.head)
        macs, _ = count_macs(model, setting.size)
        record = record_step(model, setting.batch_size, setting.size)
    return Prediction(record.peak_bytes, times.of(record), record.number, macs)


def record_step(model: Model, batch_size: int, size: tuple[int, int]) -> Record:
    """Record one training step of a model, which is one of fake tensors inside their mode."""
    step = ExampleStep(model, batch_size, size)
    with Recorder(step.tensors()) as recorder:
        step()
    record: Record = recorder.record
    return record


def calibrated(device: torch.device | str = "cpu") -> OpTimes:
    """Times of operations that know what passes between them, from real steps of a tiny model: about a second."""
    times = OpTimes(device)
    with torch.random.fork_rng(devices=[]):
        model = adapt(backbone("mit_b0", options=_TINY), LoRA(rank=2), {"seg": Semantic(classes=2)}).to(device)
        step = ExampleStep(model, 1, (32, 32))
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
