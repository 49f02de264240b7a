"""The schedule of a comparison: the runs of each arm, their order, the chosen rates, and the status of each arm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, final

from garnish.comparing.arms import Arm, ArmRun
from garnish.comparing.conditions import Conditions
from garnish.comparing.held_out_score import best_score, chosen_rate, curve_of, rate_beyond
from garnish.comparing.outcomes import Done, Failed, Measured, Outcome, Score, Trained
from garnish.comparing.report.results import Status
from garnish.comparing.test_scores import known_measure

Group = tuple[str, ...]


@final
@dataclass(frozen=True)
class Job:
    """A run to train, or to measure on the test set."""

    kind: Literal["train", "measure"]
    run: ArmRun


@final
class RunPlan:
    """The runs of a comparison and their outcomes.

    For each arm and model the rates are searched with the first seed, beyond the grid if the best rate is at its edge;
    the other seeds are run at the rate with the best held-out score; then all runs at that rate are measured on the
    test set.

    Args:
        conditions: shared by all runs.
        retry: run again what failed in an earlier session.
    """

    def __init__(self, conditions: Conditions, *, retry: bool = False) -> None:
        self.conditions, self.retry = conditions, retry
        self.outcomes: dict[ArmRun, Outcome] = {}
        self.measures: dict[ArmRun, Score] = {}

    # ---- which runs -------------------------------------------------------------------------------------------------

    def search(self, arm: Arm, group: Group) -> list[ArmRun]:
        """The runs of the rate search that are known so far: a rate beyond the grid depends on the outcomes within."""
        runs = [ArmRun(arm.name, group, rate, self.conditions.seeds[0]) for rate in arm.rates]
        for _ in range(self.conditions.options.widen):
            further = rate_beyond(self._best(runs), [run.rate for run in runs])
            if further is None:
                break
            runs = sorted([*runs, replace(runs[0], rate=further)], key=lambda run: run.rate)
        return runs

    def rate(self, arm: Arm, group: Group) -> float | None:
        """The chosen rate; None while the search is unfinished, or if no rate has a score."""
        return self._best(self.search(arm, group))

    def _best(self, runs: list[ArmRun]) -> float | None:
        outcomes = {run.rate: self.outcome(run) for run in runs}
        if any(outcome is None for outcome in outcomes.values()):
            return None
        by = self.conditions.training.best_by
        return chosen_rate({rate: best_score(curve_of(outcome, by)) for rate, outcome in outcomes.items()})

    def chosen(self, arm: Arm, group: Group) -> list[ArmRun]:
        """The runs of all seeds at the chosen rate."""
        rate = self.rate(arm, group)
        return [] if rate is None else [ArmRun(arm.name, group, rate, seed) for seed in self.conditions.seeds]

    def outcome(self, run: ArmRun) -> Outcome | None:
        """The outcome of a run, in this session or an earlier one; None if not done."""
        if run not in self.outcomes:
            store, key = self.conditions.store, self.conditions.key(run)
            known = store.outcome(key, run)
            if isinstance(known, Failed) and self.retry:
                store.forget_failure(key)
                known = None
            if known is None:
                return None
            self.outcomes[run] = known
        return self.outcomes[run]

    def measure(self, run: ArmRun) -> Score | None:
        """The test result of a run, of this session or an earlier one (Failed: this one); None if not measured."""
        if run not in self.measures:
            known = known_measure(self.conditions, run) if self.is_done(run) else None
            if known is None:
                return None
            self.measures[run] = known
        return self.measures[run]

    def is_done(self, run: ArmRun) -> bool:
        """Whether a run was trained to its end."""
        return isinstance(self.outcome(run), Trained)

    @property
    def total(self) -> int:
        """Number of runs known so far, provided that every search finds a rate."""
        return sum(self.runs_of(arm) for arm in self.conditions.arms.values())

    def runs_of(self, arm: Arm) -> int:
        """Number of runs of an arm known so far."""
        return sum(len(self.search(arm, group)) + len(self.conditions.seeds) - 1 for group in arm.groups)

    # ---- what is next -----------------------------------------------------------------------------------------------

    def jobs(self) -> Iterator[Job]:
        """Jobs that can start now, in order: an arm's search, its other seeds, its measurements."""
        for arm in self.conditions.arms.values():
            waits = False
            for group in arm.groups:
                runs = self.search(arm, group)
                open_runs = [run for run in runs if self.outcome(run) is None]
                if not open_runs:
                    open_runs = [run for run in self.chosen(arm, group) if self.outcome(run) is None]
                waits = waits or bool(open_runs)
                yield from (Job("train", run) for run in open_runs)
            if not waits:
                for group in arm.groups:
                    for run in self.chosen(arm, group):
                        if self.is_done(run) and self.measure(run) is None:
                            yield Job("measure", run)

    def note(self, job: Job, outcome: Done) -> None:
        """Record the outcome of a job."""
        if job.kind == "train":
            assert not isinstance(outcome, Measured), "a training job has a training outcome"
            self.outcomes[job.run] = outcome
        else:
            assert not isinstance(outcome, Trained), "a measuring job has a measurement"
            self.measures[job.run] = outcome

    def status(self, arm: Arm) -> tuple[Status, str | None]:
        """The status of an arm, with the reason if it failed."""
        reasons, waits = [], False
        for group in arm.groups:
            of = f"{group[0]}: " if arm.is_by_task else ""
            outcomes = [self.outcome(run) for run in self.search(arm, group)]
            if any(outcome is None for outcome in outcomes):
                waits = True
                continue
            if self.rate(arm, group) is None:
                said = next((o.reason for o in outcomes if isinstance(o, Failed)), "no score is finite")
                reasons.append(f"{of}every rate failed; {said}" if len(outcomes) > 1 else f"{of}{said}")
                continue
            for run in self.chosen(arm, group):
                outcome, measured = self.outcome(run), self.measure(run)
                failed = outcome if isinstance(outcome, Failed) else measured
                if isinstance(failed, Failed):
                    reasons.append(f"{of}rate {run.rate:g}, seed {run.seed}: {failed.reason}")
                elif outcome is None or measured is None:
                    waits = True
        if waits:
            return "unfinished", None
        return ("failed", reasons[0]) if reasons else ("done", None)
