"""What an arm costs: parameters, bytes, multiply-accumulates, bytes for backward, and the time of a step.

Steps are timed when all training is done, in one process, each beside a step of the frozen arm, and the ratio is taken
within each pair, so that slow stretches of the machine fall on both. Nothing is cached in them.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, final

import torch

from garnish.balancing.balancing import balancing_of
from garnish.comparing.conditions import ArmRun, Conditions
from garnish.comparing.keys import key_of
from garnish.comparing.runs import is_of_the_system, reason_of
from garnish.comparing.store import keep_json, kept_json
from garnish.data.dataset import Batch
from garnish.data.loader import StepBatches
from garnish.model.model import Model
from garnish.model.report import bytes_for_backward
from garnish.training.processes import make_fabric
from garnish.training.step import TrainingStep

#: Pairs of steps that are timed, after one that is not.
PAIRS = 5


@final
class Stepper:
    """A fresh model of a run, stepped as training does."""

    def __init__(self, conditions: Conditions, run: ArmRun) -> None:
        options = conditions.recipe_of(run).options
        fabric = make_fabric(options)
        self.device: torch.device = fabric.device
        self.model: Model = conditions.build(run).to(self.device)
        self.model.backbone.checkpointing = options.checkpointing
        self.model.train()
        balance = balancing_of(options.balance).build(self.model.tasks).to(self.device)
        self.step = TrainingStep(self.model, self.model.tasks, balance, options, fabric)
        assert isinstance(options.batch_size, int)
        data = conditions.parts.train(run.tasks)
        batches = StepBatches(data, options.batch_size, seed=options.seed, augment=options.augment)
        self.batch: Batch = batches.batch_at(0).to(self.device)

    def bytes_for_backward(self) -> int:
        """Bytes that the loss keeps for its backward pass, parameters left out."""
        own = (*self.model.parameters(), *self.model.backbone.frozen_tensors().values())
        step, batch = self.step, self.batch
        return bytes_for_backward(lambda: step.balance(step.losses(step.outputs(batch), batch).losses), own)

    def seconds(self) -> float:
        """Of one step."""
        _wait(self.device)
        start = time.perf_counter()
        self.step(self.batch)
        _wait(self.device)
        return time.perf_counter() - start


@final
class Costs:
    """Measures what models cost.

    Args:
        conditions: see there.
        reference: a run of the frozen arm, whose steps those of others are timed beside; None: there is none, and so
            no ratio.
        timed: time steps; False: what is counted is enough for now.
    """

    def __init__(self, conditions: Conditions, reference: ArmRun | None, *, timed: bool) -> None:
        self.conditions, self.reference, self.timed = conditions, reference, timed
        #: what could not be measured, and why
        self.faults: list[str] = []
        self._stepper: Stepper | None = None

    def of(self, run: ArmRun) -> dict[str, Any]:
        """The cost of a run's model; what could not be measured is left out."""
        cost = {"cost": self.conditions.cost_content(run)}
        found = self._kept(key_of(cost), run, self._count)
        if not self.timed:
            return found
        if self.reference is not None:
            cost["beside"] = self.conditions.cost_content(self.reference)
        return found | self._kept(key_of({"time": cost}), run, self._time)

    def _kept(self, key: str, run: ArmRun, make: Callable[[ArmRun], dict[str, Any]]) -> dict[str, Any]:
        file = self.conditions.store.cost(key)
        with self.conditions.store.lock(key):
            found = kept_json(file)
            if found is None:
                try:
                    found = make(run)
                except Exception as error:
                    if is_of_the_system(error):
                        raise
                    self.faults.append(f"Costs of {run.arm} could not be measured: {reason_of(error)}.")
                    return {}
                keep_json(file, found)
            return found

    def _count(self, run: ArmRun) -> dict[str, Any]:
        mine = Stepper(self.conditions, run)
        counts = mine.model.report((mine.batch.images.shape[-2], mine.batch.images.shape[-1]))
        mine.model.train()
        kept = ("encoder_total", "encoder_trainable", "decoder_trainable", "bundle_bytes", "macs", "macs_size")
        return {name: counts[name] for name in kept} | {"bytes_for_backward": mine.bytes_for_backward()}

    def _time(self, run: ArmRun) -> dict[str, Any]:
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
            return {"step_seconds": middle(steps), "step_ratio": 1.0}  # by definition; what was timed is the noise
        return {"step_seconds": middle(steps), "step_ratio": middle(ratios) if ratios else None}


def together(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """The cost of an arm of several models: their sums; bytes for backward of the largest, for they train in turn."""
    summed = ("encoder_trainable", "decoder_trainable", "bundle_bytes", "macs", "step_seconds", "step_ratio")

    def values(name: str) -> list[Any]:
        return [cost[name] for cost in costs if cost.get(name) is not None]

    def if_all(name: str, value: Any) -> Any:
        return value if costs and len(values(name)) == len(costs) else None

    found = {name: if_all(name, sum(values(name))) for name in summed}
    for name in ("encoder_total", "bytes_for_backward"):
        found[name] = if_all(name, max(values(name), default=None))
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
