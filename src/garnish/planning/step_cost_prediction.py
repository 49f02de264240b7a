"""What a training step will need, from a step on tensors without values.

The step (:mod:`garnish.planning.example_step`) is run under torch's fake tensors, which makes every operation that a
real one makes. Memory is the most that is alive at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.engine.adapter import Method
from garnish.model.model import Model, adapt
from garnish.model.report import count_macs
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep
from garnish.planning.recording import Recorder

#: Memory that a process needs for its tensors, over what they hold. glibc's malloc keeps what lies free between blocks
#: that are in use: 15 to 36 % in the cases of benchmarks/plan; 1 to 6 % where it is told to give all back at once.
KEPT = 1.2


@final
@dataclass(frozen=True)
class PredictedStep:
    """Of one training step: memory is predicted, time is measured.

    Attributes:
        tensor_bytes: most bytes of tensors at once: parameters, batch, gradients, optimizer state, activations; exact.
        macs: multiply-accumulates of one picture with all tasks, without training; exact.
        step_seconds: of the step; of the processor where torch has one thread. None: it was not timed.
        step_ratio: over a step of heads only that was timed beside it.
    """

    tensor_bytes: int
    macs: int
    step_seconds: float | None = None
    step_ratio: float | None = None

    @property
    def memory_bytes(self) -> int:
        """What the process needs for them."""
        return round(KEPT * self.tensor_bytes)


def predict_step(setting: Setting, method: Method) -> PredictedStep:
    """Memory and multiply-accumulates of a method.

    Args:
        setting: backbone, tasks, heads and batch.
        method: as for :func:`garnish.adapt`.
    """
    fake = FakeTensorMode()
    bare = setting.trunk.to_run(fake)
    with fake:
        model = adapt(bare, method, setting.tasks, setting.head)
        macs, _ = count_macs(model, setting.size)
        return PredictedStep(record_step(model, setting.batch_size, setting.size).peak_bytes, macs)


def record_step(model: Model, batch_size: int, size: tuple[int, int]) -> Recorder:
    """Record one training step of a model; of fake tensors inside their mode."""
    step = ExampleStep(model, batch_size, size)
    recorder = Recorder(step.tensors())
    with recorder:
        step()
    return recorder
