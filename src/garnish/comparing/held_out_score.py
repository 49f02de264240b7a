"""The held-out score: its curve, the choice of the learning rate by it, and whether it still rose at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from garnish.comparing.outcomes import Outcome, Trained
from garnish.comparing.report.results import Curve

#: Relative rise over the last quarter of the steps from which the budget counts as too short.
RISE = 0.01


def curve_of(outcome: Outcome | None, best_by: str | None) -> Curve:
    """(step, score) of each of a run's evaluations; empty if it failed or is not done.

    The score is the geometric mean over tasks of the headline metric, or of its inverse if lower is better, so that
    equal relative changes count equally; with ``train.best_by`` it is that metric, negated if lower is better.
    """
    history = outcome.history if isinstance(outcome, Trained) else ()
    return tuple((entry.step, _shown(entry.score, best_by)) for entry in history)


def best_score(curve: Curve) -> float | None:
    """The largest score of a curve; None if none is finite."""
    scores = [score for _, score in curve if score is not None]
    return max(scores) if scores else None


def chosen_rate(scores: Mapping[float, float | None]) -> float | None:
    """The rate with the best score, the lower one of equals; None if no rate has a score."""
    found = [(score, -rate) for rate, score in scores.items() if score is not None]
    return -max(found)[1] if found else None


def is_flat(curve: Curve, steps: int) -> bool | None:
    """Whether the best score rose by less than :data:`RISE` over the last quarter of the steps.

    None if there is no evaluation before that quarter, so that it is unknown.
    """
    before = best_score(tuple(point for point in curve if point[0] <= 0.75 * steps))
    whole = best_score(curve)
    if before is None or whole is None:
        return None
    return whole - before < RISE * max(abs(before), 1e-12)


def is_at_edge(rate: float | None, rates: Sequence[float]) -> bool:
    """Whether a chosen rate is the smallest or the largest of several."""
    return rate is not None and len(rates) > 1 and rate in (min(rates), max(rates))


def rate_beyond(rate: float | None, rates: Sequence[float]) -> float | None:
    """The rate to try next if the chosen one is the smallest or the largest of several; None if it is not.

    Its ratio to the end is that of the second and third rates from there, so that 1, 3, 10 continues with 30.
    """
    if rate is None or not is_at_edge(rate, rates):
        return None
    inward = sorted(rates, reverse=rate == max(rates))
    step = inward[0] / inward[1] if len(inward) < 3 else inward[1] / inward[2]
    return float(f"{rate * step:.6g}")  # 0.03, not 0.030000000000000002


def _shown(score: float | None, best_by: str | None) -> float | None:
    if score is None or not math.isfinite(score):
        return None
    return score if best_by is not None else math.exp(score)
