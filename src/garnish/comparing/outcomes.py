"""What runs, measurements and costs came to; their fields are the entries of the store's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

from garnish.comparing.arms import ArmRun

#: Task → metric → value; None where it is not finite.
Metrics = Mapping[str, Mapping[str, float | None]]


@final
@dataclass(frozen=True, kw_only=True)
class Failed:
    """What could not be trained or measured, and why."""

    status: Literal["failed"] = "failed"
    reason: str


@final
@dataclass(frozen=True, kw_only=True)
class ScoredStep:
    """One evaluation on the held-out part: the score that the best step is chosen by, and what it is made of."""

    step: int
    score: float | None
    metrics: Metrics


@final
@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that was trained to its end.

    Attributes:
        status: tells it from :class:`Failed` in a file.
        run: which.
        best_step: step of the best evaluation.
        steps: optimizer steps done.
        history: every evaluation.
        seconds: of training and evaluation, over all sittings.
        batch_size: pictures of a forward pass.
        cached: whether what the trunk makes of pictures was kept.
        warnings: what training printed.
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
    """What a run's bundle reached on the test set."""

    status: Literal["done"] = "done"
    metrics: Metrics
    num_pictures: int


@final
@dataclass(frozen=True, kw_only=True)
class Counts:
    """What is counted of a model; ``macs`` at ``macs_size`` (H, W), bytes are those of a bundle at float16."""

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
    """Time of a training step, and over that of the frozen arm; None where there is no such arm."""

    step_seconds: float
    step_ratio: float | None


#: What a training, a measurement, and either of them ends in.
Outcome = Trained | Failed
Score = Measured | Failed
Done = Trained | Measured | Failed
