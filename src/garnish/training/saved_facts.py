"""What the JSON of a checkpoint holds, and whether it can have come from a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NotRequired, TypedDict, final

from garnish.checking.plain_data import MEASURED, Json, Reading, Within, integers, read_as, reals
from garnish.engine.memory import Level
from garnish.errors import BundleError, shown
from garnish.registry import SpecFacts

#: More steps than any run takes, as :mod:`garnish.training.train_options` has it.
_MOST_STEPS = 10**15
_Steps = Annotated[int, integers(0, _MOST_STEPS)]
_Count = Annotated[int, integers(1, 10**9)]
#: The score of an evaluation that is not ranked is −∞.
_Score = Annotated[float, Within("a number or -inf", lambda score: score < float("inf"), finite=False)]

Metrics = dict[str, dict[str, Annotated[float, MEASURED]]]


#: What identifies a data set (:func:`garnish.data.identity.identity`); None: there is none of its purpose.
Aspects = dict[str, Json] | None


class Evaluation(TypedDict):
    """One evaluation of a run; metrics are task → metric → value."""

    step: _Steps
    score: _Score
    metrics: Metrics


class Watched(TypedDict):
    """The labelled steps of a task so far, and a grade of each tensor's gradients in them."""

    steps: Annotated[int, integers(0, 1000)]
    grades: list[Annotated[int, integers(0, 2)]]


@final
@dataclass
class RunState:
    """The part of a run's state that is not tensors.

    Attributes:
        step: optimizer steps done.
        history: every evaluation.
        best_step, best_score: of the best evaluation so far; None: none yet.
        best_on_some: its metrics on the pictures on which the effect of storing a bundle is measured.
        warnings: every warning, of all sessions, once.
        watched: what :class:`garnish.training.gradients.GradientWatch` has seen so far, by task.
        stopped: "" while steps are left, "finished", "early" (patience), or "callback" (one asked for it).
        seconds: spent in training and evaluation, over all sessions.
    """

    step: _Steps = 0
    history: list[Evaluation] = field(default_factory=list)
    best_step: _Steps | None = None
    best_score: _Score | None = None
    best_on_some: Metrics = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    watched: dict[str, Watched] = field(default_factory=dict)
    stopped: Literal["", "finished", "early", "callback"] = ""
    seconds: Annotated[float, reals(0, 1e15)] = 0.0

    def metrics_of(self, step: int | None) -> Metrics:
        """Metrics of the evaluation at ``step``; empty if there is none."""
        return next((entry["metrics"] for entry in self.history if entry["step"] == step), {})

    def judged(self, metrics: Metrics, score: float, on_some: Metrics, *, ranked: bool) -> bool:
        """Record the evaluation of this step; whether it is the best so far.

        Args:
            metrics: on all pictures.
            score: by which evaluations are ranked.
            on_some: metrics as ``best_on_some`` has them.
            ranked: False: it may not be the best.
        """
        self.history.append({"step": self.step, "score": score, "metrics": metrics})
        is_best = ranked and (self.best_score is None or score > self.best_score)
        if is_best:
            self.best_score, self.best_step, self.best_on_some = score, self.step, on_some
        return is_best

    def waited(self) -> int:
        """Evaluations since the best one; all of them if there is none."""
        return sum(entry["step"] > (self.best_step or 0) for entry in self.history)


class RunFacts(TypedDict):
    """The facts of a run that must not change on resuming; checkpoints of earlier versions lack some."""

    options: dict[str, Json]
    cached: NotRequired[bool]  # caching changes rounding; its folder may differ
    total_steps: Annotated[int, integers(1, _MOST_STEPS)]
    batch_size: _Count
    world: _Count
    fingerprint: str
    drop_path: NotRequired[float]
    tasks: NotRequired[dict[str, SpecFacts]]
    methods: NotRequired[dict[str, list[SpecFacts]]]
    heads: NotRequired[dict[str, SpecFacts]]
    data: NotRequired[dict[str, Aspects]]  # by purpose
    levels: NotRequired[list[Level]]  # by block, of a run with a bound: they change rounding


class Checkpoint(RunFacts):
    """The JSON facts of a checkpoint: those of the run, its state, and the numbers of scaler and optimizer."""

    state: RunState
    scaler: dict[str, int | float]
    optimizer: dict[str, dict[str, int | float | bool | None]]


def checkpoint_of(found: Mapping[str, Json], file: str) -> Checkpoint:
    """The facts of a checkpoint file, each of its type, and such that one run can have written them together.

    Raises:
        BundleError: they are not; one line that names the file and the entry.
    """
    how = Reading(
        error=BundleError,
        file=f"{file}: ",
        unknown="unknown key {place}",
        missing="has no {place}; give another folder",
    )
    made: Checkpoint = read_as(found, Checkpoint, "", how)
    if odd := _odd(made["state"], made["total_steps"]):
        raise BundleError(f"{file}: {odd}; resume from another or start again")
    return made


def _odd(state: RunState, total_steps: int) -> str:
    """What no run writes; empty if there is nothing."""
    if state.step > total_steps:
        return f"state.step is {state.step:,}, of {total_steps:,} steps in all"
    before = 0
    for number, entry in enumerate(state.history):
        if not before < entry["step"] <= state.step:
            after = f"after {before:,}, and {state.step:,} steps are done"
            return f"state.history[{number}].step is {entry['step']:,}, {after}"
        before = entry["step"]
    ranked = [(entry["score"], -entry["step"]) for entry in state.history if entry["score"] > float("-inf")]
    if ranked:
        score, best = max(ranked)
        fits = (state.best_score, state.best_step) == (score, -best)
    else:  # none, or one that has no score either, as its pictures have no labels
        fits = (state.best_score is None) == (state.best_step is None) and state.best_score in (None, float("-inf"))
    if fits and (state.best_step is None or any(entry["step"] == state.best_step for entry in state.history)):
        return ""
    return f"state.best_step is {state.best_step} with score {shown(state.best_score)}, which state.history is not like"
