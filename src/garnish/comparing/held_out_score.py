"""The held-out score by which rates and steps are chosen, its curve, and whether it was still rising at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from garnish.comparing.outcomes import Outcome, Trained
from garnish.comparing.report.results import Curve

#: A relative rise over the last quarter of the steps from which the budget counts as short.
RISE = 0.01


def curve_of(outcome: Outcome | None, best_by: str | None) -> Curve:
    """(step, score) of each of a run's evaluations; empty where it has failed or is not done.

    The score is the geometric mean over tasks of the headline metric, or of 1 over it where lower is better, so that
    equal relative changes count alike; with ``train.best_by`` it is that metric, with a minus where lower is better.
    """
    history = outcome.history if isinstance(outcome, Trained) else ()
    return tuple((entry.step, _shown(entry.score, best_by)) for entry in history)


def best_score(curve: Curve) -> float | None:
    """The largest score of a curve; None where none is finite."""
    scores = [score for _, score in curve if score is not None]
    return max(scores) if scores else None


def chosen_rate(scores: Mapping[float, float | None]) -> float | None:
    """The rate with the best score, the lower one of two that are equal; None where no rate has any."""
    found = [(score, -rate) for rate, score in scores.items() if score is not None]
    return -max(found)[1] if found else None


def is_flat(curve: Curve, steps: int) -> bool | None:
    """Whether the best score rose by less than :data:`RISE` over the last quarter of the steps.

    None where no evaluation lies before that quarter, so that nobody can tell.
    """
    before = best_score(tuple(point for point in curve if point[0] <= 0.75 * steps))
    whole = best_score(curve)
    if before is None or whole is None:
        return None
    return whole - before < RISE * max(abs(before), 1e-12)


def is_at_edge(rate: float | None, rates: Sequence[float]) -> bool:
    """Whether a chosen rate is the least or the largest of several."""
    return rate is not None and len(rates) > 1 and rate in (min(rates), max(rates))


def rate_beyond(rate: float | None, rates: Sequence[float]) -> float | None:
    """The rate to try next where a chosen one is the least or the largest of several; None where it is not.

    It lies as far beyond the end as the second step from there is wide, so that 1, 3, 10 goes on with 30.
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
