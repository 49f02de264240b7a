"""Timing training steps on this machine: a few real steps, alternating with steps that train only the heads.

The fastest of each counts, since other load on the machine only adds time, as do the memory allocations of the first
step.
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
from garnish.engine.memory import Level
from garnish.errors import one_line
from garnish.model.model import adapt
from garnish.planning.counting import Setting
from garnish.planning.example_step import ExampleStep
from garnish.planning.memory import free_bytes
from garnish.planning.step_cost_prediction import PredictedStep

#: Smallest and largest number of pairs of steps, and total seconds of the method's steps that are enough.
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
        """The prediction for a method with the time of its step; or a line that says why it was not timed."""
        needs, free = found.memory_bytes, free_bytes()
        if needs > free:
            return f"its step is not timed, as it needs {needs / 1e9:.3g} GB and {free / 1e9:.3g} GB are free"
        try:
            heads_only = self._heads_only
            step = heads_only if method == Frozen() else self._step(method, found.memory)
            ours: list[float] = []
            theirs: list[float] = []
            while len(ours) < _LEAST or (len(ours) < _MOST and sum(ours) < _ENOUGH):
                theirs.append(_seconds(heads_only))
                ours.append(_seconds(step))
        except Exception as error:  # from a user's method, or out of memory after all
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

    def _step(self, method: Method, memory: Level = "lean") -> ExampleStep:
        shared = {id(tensor): tensor for tensor in (*self._trunk.parameters(), *self._trunk.buffers())}
        model = adapt(copy.deepcopy(self._trunk, shared), method, self._setting.tasks, self._setting.head)
        model.backbone.memory = memory
        return ExampleStep(model, self._setting.batch_size, self._setting.size)


def now() -> float:
    """Processor time in seconds if torch has one thread, so that other processes do not count; else wall time."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _seconds(step: ExampleStep) -> float:
    start = now()
    step()
    return now() - start
