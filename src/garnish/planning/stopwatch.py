"""How long a training step takes here: a few real ones, each beside one of heads only.

The fastest of each counts: what else the machine does only ever adds, and so does the memory that the first step of its
size asks the system for.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from functools import cached_property
from typing import final

import torch

from garnish.adapters.reference import Frozen
from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Method
from garnish.errors import one_line
from garnish.model.model import adapt
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep
from garnish.planning.memory import free_bytes
from garnish.planning.step_cost_prediction import PredictedStep

#: Pairs of steps, at least and at most, and the seconds of the method's own after which it is enough.
_LEAST, _MOST, _ENOUGH = 2, 15, 1 / 3


@final
class Stopwatch:
    """Times steps of methods on copies of one trunk, which share its random values.

    Args:
        setting: backbone, tasks, heads and batch.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def timed(self, found: PredictedStep, method: Method) -> PredictedStep | str:
        """What was predicted of a method, with the time of its step; or why it has none."""
        needs, free = found.memory_bytes, free_bytes()
        if needs > free:
            return f"its step is not timed, for it needs {needs / 1e9:.3g} GB and {free / 1e9:.3g} GB are free"
        try:
            heads_only = self._heads_only
            step = heads_only if method == Frozen() else self._step(method)
            ours: list[float] = []
            theirs: list[float] = []
            while len(ours) < _LEAST or (len(ours) < _MOST and sum(ours) < _ENOUGH):
                theirs.append(_seconds(heads_only))
                ours.append(_seconds(step))
        except Exception as error:  # of a method of somebody else's, or no memory after all
            return f"its step cannot be timed ({one_line(error, 120)})"
        ratio = 1.0 if step is heads_only else min(ours) / min(theirs)
        return replace(found, step_seconds=min(ours), step_ratio=ratio)

    @cached_property
    def _trunk(self) -> Backbone:
        return self._setting.trunk.with_values()

    @cached_property
    def _heads_only(self) -> ExampleStep:
        step = self._step(Frozen())
        step()
        return step

    def _step(self, method: Method) -> ExampleStep:
        shared = {id(tensor): tensor for tensor in (*self._trunk.parameters(), *self._trunk.buffers())}
        model = adapt(copy.deepcopy(self._trunk, shared), method, self._setting.tasks, self._setting.head)
        return ExampleStep(model, self._setting.batch_size, self._setting.size)


def now() -> float:
    """Seconds of the processor where torch has one thread, so that other processes do not count; else by the clock."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _seconds(step: ExampleStep) -> float:
    start = now()
    step()
    return now() - start
