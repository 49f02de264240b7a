"""The recommendation: which candidate that fits to try first, by a rule of four lines (reasons: docs/plan.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from garnish.planning.counting import Counted


@final
@dataclass(frozen=True)
class Recommendation:
    """The recommended candidate.

    Attributes:
        choice: the candidate; None if nothing fits.
        reason: in one sentence.
    """

    choice: Counted | None
    reason: str


def recommend(fitting: Sequence[Counted], num_tasks: int, *, memory_excludes: bool = False) -> Recommendation:
    """Choose one of the candidates that fit.

    1. If the memory limit excludes everything that learns inside the trunk: side tuning.
    2. With several tasks: a method that runs the trunk once for all and gives each task a part of its own.
    3. Else: a method that folds into the weights and so costs nothing at inference.
    4. Else: any; heads alone if nothing else fits.

    Of those, the one with the most trained parameters in the encoder; of equal ones the smaller bundle.

    Args:
        fitting: the candidates within all limits.
        num_tasks: number of tasks trained at once.
        memory_excludes: a candidate within all other limits was left out for its memory.
    """
    methods = [c for c in fitting if not type(c.candidate.method).is_reference]
    inside = [c for c in methods if not c.candidate.beside]
    beside = [c for c in methods if c.candidate.beside]
    parts = [c for c in inside if c.candidate.parts]
    merging = [c for c in inside if c.candidate.merges and c.candidate.sharing != "per task"]
    if memory_excludes and beside and not inside:
        return Recommendation(
            _largest(beside),
            "the memory allowed excludes all that learns inside the trunk, whose activations must then be kept;"
            " a network beside it keeps none of them",
        )
    if num_tasks > 1 and parts:
        return Recommendation(
            _largest(parts),
            f"one pass of the trunk serves all {num_tasks} tasks and each owns a part; of such methods it is the"
            " largest that fits",
        )
    if merging:
        return Recommendation(
            _largest(merging),
            "it folds into the backbone's weights, so it costs nothing when the model is used; of such methods it is"
            " the largest that fits",
        )
    if methods:
        return Recommendation(_largest(methods), "it is the largest that fits")
    heads = [c for c in fitting if not c.encoder_trainable]
    if heads:
        return Recommendation(heads[0], "no adapter fits the budget, heads alone do")
    return Recommendation(None, "nothing fits; allow more")


def _largest(some: Sequence[Counted]) -> Counted:
    return max(some, key=lambda c: (c.encoder_trainable, -c.bundle_bytes))
