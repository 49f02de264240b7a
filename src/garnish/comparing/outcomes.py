"""Outcomes of runs, measurements and costs: dataclasses whose fields are the entries of the store's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

from garnish.comparing.arms import ArmRun

#: Task → metric → value; None if it is not finite.
Metrics = Mapping[str, Mapping[str, float | None]]


@final
@dataclass(frozen=True, kw_only=True)
class Failed:
    """A run that could not be trained or measured, with the reason."""

    status: Literal["failed"] = "failed"
    reason: str


@final
@dataclass(frozen=True, kw_only=True)
class ScoredStep:
    """One evaluation on the held-out part: the score by which the best step is chosen, and the metrics behind it."""

    step: int
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
    best_step: int | None
    steps: int
    history: tuple[ScoredStep, ...]
    seconds: float
    batch_size: int
    cached: bool
    warnings: tuple[str, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """The metrics of a run's bundle on the test set."""

    status: Literal["done"] = "done"
    metrics: Metrics
    num_pictures: int


@final
@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counted costs of a model; ``macs`` at ``macs_size`` (H, W), ``bundle_bytes`` at float16."""

    encoder_total: int
    encoder_trainable: int
    decoder_trainable: int
    bundle_bytes: int
    macs: int
    macs_size: tuple[int, int]
    bytes_for_backward: int


@final
@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Time of a training step, and its ratio to that of the frozen arm; None if there is no such arm."""

    step_seconds: float
    step_ratio: float | None


#: The outcome of a training, of a measurement, and of either.
Outcome = Trained | Failed
Score = Measured | Failed
Done = Trained | Measured | Failed
