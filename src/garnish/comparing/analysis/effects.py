"""Test metrics of arms and their effects against the references, over seeds and resampled test pictures."""

from __future__ import annotations

import dataclasses
import math
from typing import final

import numpy as np

from garnish.comparing.analysis.statistics import (
    Floats,
    delta_m_draws,
    gap_draws,
    gap_recovered,
    interval,
    paired_interval,
    resamples,
    spread,
    void_reason,
)
from garnish.comparing.analysis.totals_by_picture import PictureTotals
from garnish.comparing.arms import Arm, ArmRun
from garnish.comparing.outcomes import Measured
from garnish.comparing.report.results import DeltaM, Difference, Gap, Spread
from garnish.comparing.schedule import RunPlan
from garnish.comparing.test_scores import drawn_of, totals_of
from garnish.tasks.metrics.delta_m import delta_m
from garnish.tasks.task import Task

#: Number of bootstrap draws.
RESAMPLES = 1000


@final
class Effects:
    """Metrics and effects of measured arms; bootstrap draws are cached.

    Args:
        plan: the plan with the measurements.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.plan, self.conditions = plan, plan.conditions
        self.tasks: dict[str, Task] = plan.conditions.tasks
        self.counts = resamples(len(plan.conditions.parts.test()), RESAMPLES)
        self._draws: dict[ArmRun, dict[str, Floats]] = {}
        self._totals: dict[ArmRun, dict[str, PictureTotals | None]] = {}

    # ---- one arm ----------------------------------------------------------------------------------------------------

    def runs(self, arm: Arm, task: str) -> list[ArmRun]:
        """The measured runs of an arm that include a task, by seed."""
        runs = [run for group in arm.groups if task in group for run in self.plan.chosen(arm, group)]
        return [run for run in runs if isinstance(self.plan.measure(run), Measured)]

    def values(self, arm: Arm, task: str, metric: str) -> list[float | None]:
        """A metric of each seed's run."""
        return [self._measured(run).metrics[task].get(metric) for run in self.runs(arm, task)]

    def _measured(self, run: ArmRun) -> Measured:
        found = self.plan.measure(run)
        assert isinstance(found, Measured), "one of `runs`"
        return found

    def headlines(self, arm: Arm, task: str) -> list[float | None]:
        """The headline metric of each seed's run."""
        return self.values(arm, task, self.tasks[task].headline)

    def mean(self, arm: Arm | None, task: str) -> float:
        """Mean of the headline metric over seeds; NaN without a value."""
        found = None if arm is None else spread(self.headlines(arm, task)).mean
        return math.nan if found is None else found

    def metrics(self, arm: Arm) -> tuple[dict[str, dict[str, Spread]], dict[str, dict[str, Spread]]]:
        """Task → metric → spread over seeds, and task → class → spread of the class's IoU."""
        found: dict[str, dict[str, Spread]] = {}
        by_class: dict[str, dict[str, Spread]] = {}
        for task in self.tasks:
            runs = self.runs(arm, task)
            names = list(self._measured(runs[0]).metrics[task]) if runs else []
            spreads = {name: spread(self.values(arm, task, name)) for name in names}
            classes = {name: value for name, value in spreads.items() if name.startswith("iou/")}
            if runs:
                found[task] = {name: value for name, value in spreads.items() if name not in classes}
            if classes:
                by_class[task] = {
                    name.removeprefix("iou/"): dataclasses.replace(value, values=None)
                    for name, value in classes.items()
                }
        return found, by_class

    def draws(self, arm: Arm, task: str) -> Floats | None:
        """The headline metric in each draw of test pictures, mean over seeds; None if it cannot be resampled."""
        runs = self.runs(arm, task)
        drawn = [found for run in runs if (found := self._drawn(run).get(task)) is not None]
        return np.mean(drawn, axis=0) if runs and len(drawn) == len(runs) else None

    def _drawn(self, run: ArmRun) -> dict[str, Floats]:
        """Task → the headline metric of one run in each draw; stored with the run's measurement."""
        if run not in self._draws:
            self._draws[run] = drawn_of(self.conditions, run, self.counts)
        return self._draws[run]

    def totals(self, run: ArmRun) -> dict[str, PictureTotals | None]:
        """The totals of each test picture for a run's metrics, by task."""
        if run not in self._totals:
            self._totals[run] = totals_of(self.conditions, run)
        return self._totals[run]

    # ---- against references -----------------------------------------------------------------------------------------

    def reference(self, role: str) -> Arm | None:
        """The measured arm of a role; None if there is none, or it lacks a task."""
        arm = next((arm for arm in self.conditions.arms.values() if arm.role == role), None)
        whole = arm is not None and all(math.isfinite(self.mean(arm, task)) for task in self.tasks)
        return arm if whole else None

    def delta_m(self, arm: Arm) -> DeltaM | None:
        """Δm of each seed against the single-task reference's means, with its interval; None if either lacks a task."""
        single = self.reference("single")
        if single is None:
            return None
        better = {task: t.higher_is_better for task, t in self.tasks.items()}
        means = {task: self.mean(single, task) for task in self.tasks}
        if not all(means.values()):
            return None
        by_task = {
            task: {
                run.seed: value
                for run, value in zip(self.runs(arm, task), self.headlines(arm, task), strict=True)
                if value is not None
            }
            for task in self.tasks
        }
        seeds = [seed for seed in self.conditions.seeds if all(seed in known for known in by_task.values())]
        if not seeds:
            return None
        values = [delta_m({task: by_task[task][seed] for task in self.tasks}, means, better) for seed in seeds]
        ours = {task: self.draws(arm, task) for task in self.tasks}
        theirs = {task: self.draws(single, task) for task in self.tasks}
        both = {t: d for t, d in ours.items() if d is not None}, {t: d for t, d in theirs.items() if d is not None}
        whole = len(both[0]) == len(both[1]) == len(self.tasks)
        drawn = interval(delta_m_draws(*both, better)) if whole else None
        return DeltaM(**vars(spread(values)), interval=drawn)

    def difference(self, arm: Arm) -> dict[str, Difference]:
        """Task → headline metric minus the single-task reference's, in its unit, with its interval."""
        single = self.reference("single")
        found: dict[str, Difference] = {}
        if single is None or arm is single:
            return found
        for task in self.tasks:
            ours, theirs = self.draws(arm, task), self.draws(single, task)
            mean = self.mean(arm, task) - self.mean(single, task)
            if math.isfinite(mean):
                drawn = None if ours is None or theirs is None else paired_interval(ours, theirs)
                found[task] = Difference(mean=mean, interval=drawn)
        return found

    def gap(self, arm: Arm) -> tuple[dict[str, Gap], list[str]]:
        """Task → the gap recovered with its interval, void if there is hardly a gap; and notes on void ones."""
        frozen, single = self.reference("frozen"), self.reference("single")
        if frozen is None or single is None or arm in (frozen, single):
            return {}, []
        found: dict[str, Gap] = {}
        notes = []
        for task, about in self.tasks.items():
            if not self.runs(arm, task):
                continue
            better = about.higher_is_better
            low, high = self.mean(frozen, task), self.mean(single, task)
            void = gap_recovered(self.mean(arm, task), low, high, better)[1]
            seeds = [math.nan if value is None else value for value in self.headlines(arm, task)]
            values = [] if void else [gap_recovered(value, low, high, better)[0] for value in seeds]
            drawn = [d for one in (arm, frozen, single) if (d := self.draws(one, task)) is not None]
            between = None
            if not void and len(drawn) == 3:
                draws = gap_draws(drawn[0], drawn[1], drawn[2], better)
                between = interval(draws)
                if (void := void_reason(draws)) is not None:
                    values, between = [], None
                    notes.append(f"{task}: no gap recovered is told, for {void}.")
            found[task] = Gap(mean=spread(values).mean, values=tuple(values), interval=between, void=void)
        return found, notes
