"""The most bytes that a training step holds above the loaded model, counted in a step on tensors without values.

A copy of the model, of torch's fake tensors, goes through the operations of a real step, whose bytes are counted. Not
counted is what torch's kernels take inside of one operation and, on a GPU, what its allocator rounds up.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, final

import torch
from lightning.fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from garnish.checking.recording import Recorder
from garnish.data.dataset import Batch, Sample
from garnish.engine.memory import Level
from garnish.engine.owner import Owner
from garnish.model.report import flop_counter
from garnish.training.example_batch import copies, with_gaps
from garnish.training.step import TrainingStep
from garnish.training.undone_step import BegunStep

M = TypeVar("M", bound=nn.Module)
Levels = tuple[Level, ...]


def loaded_tensors(step: TrainingStep) -> Iterator[Tensor]:
    """What is in memory before training: the model's tensors, and the balance's."""
    for module in (step.model, step.balance):
        yield from module.parameters()
        yield from module.buffers()


def moments(step: TrainingStep) -> Iterator[Tensor]:
    """What the optimizer keeps from step to step; nothing before the first."""
    for state in step.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


@final
class SimulatedStep:
    """A step on copies of a picture, on fake tensors, or on the real ones, which it leaves as they were.

    Args:
        step: of the run; its model is in training mode.
        sample: the picture.
        gaps: some pictures of a batch may lack labels.
        processes: that share a step.
        is_real: run the model itself, up to the optimizer's step, for code that fake tensors cannot run.
    """

    def __init__(self, step: TrainingStep, sample: Sample, *, gaps: bool, processes: int, is_real: bool) -> None:
        self._sample, self._gaps, self._processes = sample, gaps, processes
        self._original, self._device = step, step.model.device
        self._fake = None if is_real else FakeTensorMode(allow_non_fake_inputs=True)
        self._step = step if self._fake is None else _of_copies(step, self._fake)
        self.trunk = self._step.model.backbone
        self._loaded = Recorder(loaded_tensors(self._step)).start_bytes
        #: of a gradient and two moments of each trained tensor, and AdamW's count of steps
        self.kept_bytes = sum(3 * tensor.nbytes + 4 for tensor in self._step.trained.values())
        self._known: dict[tuple[Levels, int], int] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks of the trunk, over all stages."""
        return len(self.trunk.levels)

    def peak(self, levels: Levels, count: int) -> int:
        """Most bytes alive in a step of ``count`` pictures, gradients and moments included, the model left out."""
        if (levels, count) not in self._known:
            with self._running(levels):
                batch = copies(self._sample, count, self._device)
                found = self._recorded(batch)
                if self._gaps and count > 1:
                    found = max(found, self._recorded(with_gaps(batch)))
            self._known[levels, count] = found
        return self._known[levels, count]

    def allocated(self, levels: Levels, count: int) -> int:
        """As :meth:`peak`, of the model itself on a GPU, as its allocator counts it.

        Raises:
            torch.cuda.OutOfMemoryError: there is not so much.
        """
        real = SimulatedStep(self._original, self._sample, gaps=False, processes=self._processes, is_real=True)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        real.peak(levels, count)
        moments_bytes = sum(2 * tensor.nbytes for tensor in real._step.trained.values())
        return torch.cuda.max_memory_allocated(self._device) - before + moments_bytes

    def counts(self, level: Level, count: int) -> tuple[list[int], list[int]]:
        """By block, the bytes that a forward pass at one level keeps there, and its multiply-accumulates."""
        kept, macs = [0] * self.num_blocks, [0] * self.num_blocks
        begun: list[tuple[int, int, int]] = []
        with self._running((level,) * self.num_blocks):
            batch = copies(self._sample, count, self._device)
            with flop_counter() as counter, Recorder([*loaded_tensors(self._step), *batch.tensors()]) as recorder:

                def reached(block: int | None) -> None:
                    now = recorder.alive_bytes, counter.get_total_flops() // 2
                    if begun:
                        number, *before = begun.pop()
                        kept[number] += now[0] - before[0]
                        macs[number] += now[1] - before[1]
                    if block is not None:
                        begun.append((block, *now))

                with self._told(reached):
                    self._step.outputs(batch)
        return kept, macs

    @contextlib.contextmanager
    def _told(self, reached: Callable[[int | None], None]) -> Iterator[None]:
        """Call ``reached`` with each block's number before it runs, and with None after the trunk."""
        trunk, handles = self.trunk, []
        owners = [owner for owner in self.trunk.owners.values() if isinstance(owner, Owner)]
        bodies = {id(body): body for body in (trunk.body, *(owner.body(trunk.body) for owner in owners))}
        for body in bodies.values():
            firsts = [unit.module for unit in body.units if unit.kind == "residual" and unit.rests]
            for number, module in enumerate(firsts):
                handles.append(module.register_forward_pre_hook(lambda *_, number=number: reached(number)))
        handles.append(trunk.register_forward_hook(lambda *_: reached(None)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def _running(self, levels: Levels) -> Iterator[None]:
        """Run at these levels; afterwards generators, levels and buffers are as before."""
        former, self.trunk.memory = self.trunk.memory, levels
        begun = BegunStep(self._step.buffers().values()) if self._fake is None else None
        if begun is not None:
            begun.begin()
        devices = [self._device] if self._device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), self._fake or contextlib.nullcontext():
                yield
        finally:
            self.trunk.memory = former
            if begun is not None:
                begun.undo()

    def _recorded(self, batch: Batch) -> int:
        step, parts = self._step, self._step.options.accumulate
        recorder = Recorder([*loaded_tensors(step), *batch.tensors(), *moments(step)])
        with recorder:
            for _ in range(min(parts, 2)):  # the second has gradients of the one before, as all that follow
                self._part(batch, parts)
            if self._processes > 1:  # as garnish.training.gradients exchanges them
                flat = torch.cat([tensor.reshape(-1) for tensor in self._exchanged()])
                del flat
            if self._fake is not None:
                step.update(step.norm())
        for parameter in step.trained.values():
            parameter.grad = None
        missing = 0
        if self._fake is None and not step.optimizer.state:
            missing = sum(2 * tensor.nbytes + 4 for tensor in step.trained.values())
        return recorder.peak_bytes - self._loaded + missing

    def _part(self, batch: Batch, parts: int) -> None:
        outputs = self._step.outputs(batch)
        losses = self._step.own_losses(outputs, batch)
        del outputs
        self._step.backward(self._step.balance(losses) / parts)

    def _exchanged(self) -> Sequence[Tensor]:
        grads = [p.grad for n, p in self._step.trained.items() if not n.startswith("balance.") and p.grad is not None]
        return [*grads, *(b for b in self._step.buffers().values() if b.is_floating_point())]


def _of_copies(step: TrainingStep, fake: FakeTensorMode) -> TrainingStep:
    """The step of a copy whose tensors have no values, and whose optimizer has its state."""
    precise, options = step.precision, step.options
    if options.precision == "16-mixed":  # whose scaler reads values; these are as large
        options = dataclasses.replace(options, precision="bf16-mixed")
        precise = MixedPrecision("bf16-mixed", step.model.device.type)
    model, balance = without_values(step.model, fake), without_values(step.balance, fake)
    with fake:
        made = TrainingStep(model, step.tasks, balance, options)
        made.precision = precise
        for parameter in made.trained.values():
            parameter.grad = torch.zeros_like(parameter)
        made.update(None)
    return made


def without_values(module: M, fake: FakeTensorMode) -> M:
    """A copy of a module with fake tensors in place of its own, to run inside their mode."""
    known: dict[int, object] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        made = fake.from_tensor(tensor.detach())
        is_parameter = isinstance(tensor, nn.Parameter)
        known[id(tensor)] = nn.Parameter(made, requires_grad=tensor.requires_grad) if is_parameter else made
    return copy.deepcopy(module, known)
