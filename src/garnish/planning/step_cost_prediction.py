"""Predicting the memory and MACs of a training step from a step on tensors without values.

The step (:mod:`garnish.planning.example_step`) is run with torch's fake tensors, which goes through the same
operations as a real one. Memory is the peak of bytes that are alive at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.checking.recording import Recorder
from garnish.engine.adapter import Method
from garnish.engine.memory import Level
from garnish.model.model import Model, adapt
from garnish.model.report import count_macs
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep

#: Memory that a process needs for its tensors, over their bytes. glibc's malloc keeps free gaps between blocks
#: in use: 15 to 36 % in the cases of benchmarks/plan; 1 to 6 % if it is told to return memory at once.
KEPT = 1.2


@final
@dataclass(frozen=True)
class PredictedStep:
    """The cost of one training step: memory is predicted, time is measured.

    Attributes:
        tensor_bytes: peak bytes of tensors: parameters, batch, gradients, optimizer state, activations; exact.
        macs: multiply-accumulates of one picture with all tasks, forward only; exact.
        memory: what the trunk's blocks keep, as ``train.memory`` has it.
        step_seconds: of the step; processor time if torch has one thread. None: it was not timed.
        step_ratio: over the time of a step of heads only, timed alternately with it.
    """

    tensor_bytes: int
    macs: int
    memory: Level = "lean"
    step_seconds: float | None = None
    step_ratio: float | None = None

    @property
    def memory_bytes(self) -> int:
        """Memory that the process needs for the tensors."""
        return round(KEPT * self.tensor_bytes)


def predict_step(setting: Setting, method: Method, memory: Level = "lean", macs: int | None = None) -> PredictedStep:
    """Memory and multiply-accumulates of a method.

    Args:
        setting: backbone, tasks, heads and batch.
        method: as for :func:`garnish.adapt`.
        memory: what the trunk's blocks keep.
        macs: the multiply-accumulates, if they are known.
    """
    fake = FakeTensorMode()
    bare = setting.trunk.to_run(fake)
    bare.memory = memory
    with fake:
        model = adapt(bare, method, setting.tasks, setting.head)
        macs = count_macs(model, setting.size)[0] if macs is None else macs
        return PredictedStep(record_step(model, setting.batch_size, setting.size).peak_bytes, macs, memory)


def record_step(model: Model, batch_size: int, size: tuple[int, int]) -> Recorder:
    """Record one training step of a model; a model of fake tensors needs their mode active."""
    step = ExampleStep(model, batch_size, size)
    recorder = Recorder(step.tensors())
    with recorder:
        step()
    return recorder
