"""The costs of an arm: parameters, bytes, multiply-accumulates, bytes for backward, and the time of a step.

Steps are timed after all training, in one process, each paired with a step of the frozen arm; ratios are taken within
pairs, so that slow phases of the machine affect both. No features are cached in timed steps.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch

from garnish.balancing.balancing import balancing_of
from garnish.comparing.arms import ArmRun
from garnish.comparing.conditions import Conditions
from garnish.comparing.keys import key_of
from garnish.comparing.outcomes import Counts, StepTime
from garnish.comparing.runs import is_of_the_system, reason_of
from garnish.comparing.store import keep_json, kept
from garnish.data.dataset import Batch
from garnish.data.loader import StepBatches
from garnish.model.model import Model
from garnish.model.report import bytes_for_backward
from garnish.training.processes import make_fabric
from garnish.training.run_memory import RunMemory
from garnish.training.step import TrainingStep

#: Number of timed pairs of steps, after one untimed step.
PAIRS = 5
T = TypeVar("T")


@final
class Stepper:
    """A fresh model of a run with a batch, to run and time training steps."""

    def __init__(self, conditions: Conditions, run: ArmRun) -> None:
        options = dataclasses.replace(conditions.recipe_of(run).options, cache=None)
        fabric = make_fabric(options)
        self.device: torch.device = fabric.device
        self.model: Model = conditions.build(run).to(self.device)
        self.model.train()
        balance = balancing_of(options.balance).build(self.model.tasks).to(self.device)
        self.step = TrainingStep(self.model, self.model.tasks, balance, options, fabric)
        assert isinstance(options.batch_size, int)
        data = conditions.parts.train(run.tasks)
        RunMemory(self.step, fabric).begin(data, None)
        batches = StepBatches(data, options.batch_size, seed=options.seed, augment=options.augment)
        self.batch: Batch = batches.batch_at(0).to(self.device)

    def bytes_for_backward(self) -> int:
        """Bytes that the loss keeps for its backward pass, without parameters."""
        step, batch = self.step, self.batch
        own = (*self.model.parameters(), *self.model.buffers(), *step.balance.parameters(), *batch.tensors())
        return bytes_for_backward(lambda: step.balance(step.losses(step.outputs(batch), batch).losses), own)

    def seconds(self) -> float:
        """Run one step; returns its time in seconds."""
        _wait(self.device)
        start = time.perf_counter()
        self.step(self.batch)
        _wait(self.device)
        return time.perf_counter() - start


@final
class Costs:
    """Measures what models cost.

    Args:
        conditions: shared by all runs.
        reference: a run of the frozen arm, with whose steps other steps are paired; None: there is no such arm, so
            no ratios.
        timed: time steps; False: only count.
    """

    def __init__(self, conditions: Conditions, reference: ArmRun | None, *, timed: bool) -> None:
        self.conditions, self.reference, self.timed = conditions, reference, timed
        #: a line for each cost that could not be measured, with the reason
        self.faults: list[str] = []
        self._stepper: Stepper | None = None

    def of(self, run: ArmRun) -> tuple[Counts | None, StepTime | None]:
        """The cost of a run's model; None if it could not be measured."""
        cost = {"cost": self.conditions.cost_content(run)}
        # the bytes of stores before are of another count
        counts = self._kept(Counts, key_of({**cost, "bytes": "alive"}), run, self._count)
        if not self.timed:
            return counts, None
        if self.reference is not None:
            cost["beside"] = self.conditions.cost_content(self.reference)
        return counts, self._kept(StepTime, key_of({"time": cost}), run, self._time)

    def _kept(self, kind: type[T], key: str, run: ArmRun, make: Callable[[ArmRun], T]) -> T | None:
        file = self.conditions.store.cost(key)
        with self.conditions.store.lock(key):
            found = kept(kind, file)
            if found is None:
                try:
                    found = make(run)
                except Exception as error:
                    if is_of_the_system(error):
                        raise
                    self.faults.append(f"Costs of {run.arm} could not be measured: {reason_of(error)}.")
                    return None
                keep_json(file, found)
            return found

    def _count(self, run: ArmRun) -> Counts:
        mine = Stepper(self.conditions, run)
        counts = mine.model.report((mine.batch.images.shape[-2], mine.batch.images.shape[-1]))
        mine.model.train()
        return Counts(
            encoder_total=counts["encoder_total"],
            encoder_trainable=counts["encoder_trainable"],
            decoder_trainable=counts["decoder_trainable"],
            bundle_bytes=counts["bundle_bytes"],
            macs=counts["macs"],
            macs_size=tuple(counts["macs_size"]),
            bytes_for_backward=mine.bytes_for_backward(),
        )

    def _time(self, run: ArmRun) -> StepTime:
        mine = Stepper(self.conditions, run)
        if self.reference is not None and self._stepper is None:
            self._stepper = Stepper(self.conditions, self.reference)
            self._stepper.seconds()
        mine.seconds()  # the first step allocates
        steps, ratios = [], []
        for pair in range(PAIRS):
            order = (self._stepper, mine) if pair % 2 else (mine, self._stepper)
            times = {id(one): one.seconds() for one in order if one is not None}
            steps.append(times[id(mine)])
            if self._stepper is not None:
                ratios.append(times[id(mine)] / times[id(self._stepper)])
        del mine
        gc.collect()
        middle = statistics.median
        if self.reference is not None and self.conditions.cost_content(run) == self.conditions.cost_content(
            self.reference
        ):
            return StepTime(step_seconds=middle(steps), step_ratio=1.0)  # by definition; measured, it would be noise
        return StepTime(step_seconds=middle(steps), step_ratio=middle(ratios) if ratios else None)


@final
@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """The cost of an arm; None if one of its models could not be measured."""

    encoder_total: int | None
    encoder_trainable: int | None
    decoder_trainable: int | None
    bundle_bytes: int | None
    macs: int | None
    bytes_for_backward: int | None
    step_seconds: float | None
    step_ratio: float | None


def together(costs: Sequence[tuple[Counts | None, StepTime | None]]) -> ArmCost:
    """The summed cost of an arm's models; bytes for backward are the maximum, as they train one after the other."""
    counts = [counted for counted, _ in costs if counted is not None]
    times = [time for _, time in costs if time is not None]
    counted, timed = (bool(costs) and len(known) == len(costs) for known in (counts, times))
    ratios = [time.step_ratio for time in times if time.step_ratio is not None]
    return ArmCost(
        encoder_total=max(one.encoder_total for one in counts) if counted else None,
        encoder_trainable=sum(one.encoder_trainable for one in counts) if counted else None,
        decoder_trainable=sum(one.decoder_trainable for one in counts) if counted else None,
        bundle_bytes=sum(one.bundle_bytes for one in counts) if counted else None,
        macs=sum(one.macs for one in counts) if counted else None,
        bytes_for_backward=max(one.bytes_for_backward for one in counts) if counted else None,
        step_seconds=sum(one.step_seconds for one in times) if timed else None,
        step_ratio=sum(ratios) if timed and len(ratios) == len(times) else None,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
