"""Outcomes of runs, measurements and costs: dataclasses whose fields are the entries of the store's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, final

from garnish.checking.plain_data import Within, integers, reals
from garnish.comparing.arms import ArmRun
from garnish.errors import LONGEST, one_line

_Steps = Annotated[int, integers(0, 10**15)]
_Number = Annotated[int, integers(0, 10**18)]
_Seconds = Annotated[float, reals(0, 1e15)]
_Line = Annotated[str, Within("one line of text", lambda text: text == one_line(text, LONGEST))]

#: Task → metric → value; None if it is not finite.
Metrics = Mapping[str, Mapping[str, float | None]]


@final
@dataclass(frozen=True, kw_only=True)
class Failed:
    """A run that could not be trained or measured, with the reason."""

    status: Literal["failed"] = "failed"
    reason: _Line


@final
@dataclass(frozen=True, kw_only=True)
class ScoredStep:
    """One evaluation on the held-out part: the score by which the best step is chosen, and the metrics behind it."""

    step: _Steps
    score: float | None
    metrics: Metrics


@final
@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that was trained to its end.

    Attributes:
        status: distinguishes it from :class:`Failed` in a file.
        run: the run.
        best_step: step of the best evaluation.
        steps: optimizer steps done.
        history: every evaluation.
        seconds: of training and evaluation, over all sessions.
        batch_size: pictures of a forward pass.
        cached: whether trunk features were cached.
        warnings: the warnings that training printed.
    """

    status: Literal["done"] = "done"
    run: ArmRun
    best_step: _Steps | None
    steps: _Steps
    history: tuple[ScoredStep, ...]
    seconds: _Seconds
    batch_size: Annotated[int, integers(1, 10**9)]
    cached: bool
    warnings: tuple[str, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """The metrics of a run's bundle on the test set."""

    status: Literal["done"] = "done"
    metrics: Metrics
    num_pictures: _Number


@final
@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counted costs of a model; ``macs`` at ``macs_size`` (H, W), ``bundle_bytes`` at float16."""

    encoder_total: _Number
    encoder_trainable: _Number
    decoder_trainable: _Number
    bundle_bytes: _Number
    macs: _Number
    macs_size: tuple[_Number, _Number]
    bytes_for_backward: _Number


@final
@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Time of a training step, and its ratio to that of the frozen arm; None if there is no such arm."""

    step_seconds: _Seconds
    step_ratio: _Seconds | None


#: The outcome of a training, of a measurement, and of either.
Outcome = Trained | Failed
Score = Measured | Failed
Done = Trained | Measured | Failed


def odd_training(found: Trained, run: ArmRun) -> str:
    """Why an outcome cannot be that of a run (whose arm may have another name by now); empty if it can."""
    if (found.run.tasks, found.run.rate, found.run.seed) != (run.tasks, run.rate, run.seed):
        return f"it is of another run ({one_line(found.run, 200)})"
    before = 0
    for entry in found.history:
        if not before < entry.step <= found.steps or not entry.metrics.keys() <= set(run.tasks):
            return f"no run has such an evaluation at step {entry.step:,}"
        before = entry.step
    scores = {entry.step: entry.score for entry in found.history}
    known = [score for score in scores.values() if score is not None]
    if found.best_step not in scores or (known and scores[found.best_step] != max(known)):
        return f"its best step, {found.best_step}, is not the best of its evaluations"
    return ""


def odd_measurement(found: Measured, headlines: Mapping[str, str], num_pictures: int) -> str:
    """Why a measurement cannot be of these tasks (each with its headline metric) and pictures; empty if it can."""
    if found.num_pictures != num_pictures:
        return f"it is of {found.num_pictures:,} pictures, not {num_pictures:,}"
    lacking = [task for task, headline in headlines.items() if headline not in found.metrics.get(task, {})]
    return f"it has no headline of {lacking[0]}" if lacking else ""
