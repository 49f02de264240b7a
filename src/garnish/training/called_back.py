"""The callbacks of one run: when they are called, and what all processes then know of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

from garnish.errors import GarnishError, one_line
from garnish.training.callback import Callback, Moment, StopTraining
from garnish.training.run import Run


@final
class CalledBack:
    """Calls the callbacks of a run, in its first process; without any, each call returns at once.

    Args:
        callbacks: in order; in every process of the run the same number.
        run: which they watch.

    Attributes:
        asked: one of them asked the run to stop; the same in all processes.
    """

    def __init__(self, callbacks: Sequence[Callback], run: Run) -> None:
        self._callbacks, self._run = tuple(callbacks), run
        self._losses: dict[str, float] = {}
        self._loss = math.nan
        self._rates: dict[str, float] = {}
        self.asked = False

    def start(self) -> None:
        """Before the first step."""
        self._call("on_start")

    def step(self, losses: Mapping[str, float], loss: float, factor: float) -> None:
        """After a step whose learning rates were ``factor`` times their peaks."""
        if self._callbacks:
            options = self._run.options
            heads = options.lr if options.head_lr is None else options.head_lr
            self._losses, self._loss = dict(losses), loss
            self._rates = {"lr": factor * options.lr, "head_lr": factor * heads}
            self._call("on_step")

    def evaluation(self) -> None:
        """After an evaluation."""
        self._call("on_evaluation")

    def end(self) -> None:
        """After the run."""
        self._call("on_end")

    def _call(self, name: str) -> None:
        if not self._callbacks:
            return
        fabric, fault = self._run.fabric, None
        if self._run.is_first:
            try:
                self._call_each(name)
            except Exception as error:
                if fabric.world_size == 1:
                    raise
                fault = error  # the others wait for the broadcast
        if fabric.world_size > 1:
            self.asked, failed = fabric.broadcast((self.asked, fault is not None))
            if fault is not None:
                raise fault
            if failed:
                raise GarnishError("a callback failed in the first process, whose error says why")

    def _call_each(self, name: str) -> None:
        now = self._now()
        for callback in self._callbacks:
            try:
                getattr(callback, name)(now)
            except StopTraining as stop:
                if stop.reason and not self.asked:
                    self._run.progress.say(f"step {now.step}: a callback ends the run: {one_line(stop.reason, 300)}")
                self.asked = True

    def _now(self) -> Moment:
        run, state = self._run, self._run.state
        last = state.history[-1] if state.history else None
        return Moment(
            model=run.model,
            step=state.step,
            total_steps=run.total_steps,
            out=run.out,
            losses=dict(self._losses),
            loss=self._loss,
            rates=dict(self._rates),
            weights=run.balance.learnt_weights(),
            steps_per_second=run.progress.speed,
            metrics={} if last is None else {task: dict(found) for task, found in last["metrics"].items()},
            is_best=last is not None and state.best_step == last["step"],
            stopped=state.stopped,
        )
