"""Statistics of a comparison: paired bootstrap over test pictures, Δm, gap recovered, spread over seeds.

Each draw takes pictures of the test set with replacement; all arms, references, tasks and seeds get the same draws, so
that a picture's general difficulty cancels in differences. Metrics are recomputed from the pooled totals of each draw,
including thresholds that a metric chooses on the set. An interval thus shows how much of a difference depends on
*which* pictures were tested. It does not show how training varies with the seed: that is the spread over seeds, which
is reported next to it.

Pictures must be independent for this. Frames of a video are not: neighbours are similar, so there are fewer
independent pictures than frames, and the intervals are then **too narrow**.

Percentile intervals: Efron & Tibshirani 1993, section 13.3.

Shape letters: P pictures, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from garnish.comparing.analysis.totals_by_picture import PictureTotals, computed, metric_of
from garnish.comparing.report.results import Interval, Spread
from garnish.errors import DataError, OptionError
from garnish.tasks.metrics.delta_m import delta_m
from garnish.tasks.task import Task

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def resamples(num_pictures: int, draws: int = 1000, seed: int = 0) -> Integers:
    """(R, P) int64: how often each picture occurs in each draw of P pictures with replacement; rows sum to P.

    Raises:
        OptionError: no picture or no draw.
    """
    if num_pictures < 1 or draws < 1:
        raise OptionError(f"resamples: {num_pictures} pictures, {draws} draws; give 1 or more of each")
    return np.random.default_rng(seed).multinomial(num_pictures, np.full(num_pictures, 1 / num_pictures), size=draws)


def per_picture(task: Task, totals: PictureTotals) -> list[float]:
    """The headline metric of each picture alone; NaN for a picture without a label of the task.

    Used to find the worst pictures. Their mean differs from the metric of the set, which pools pixels.
    """
    metric = metric_of(task)
    return [
        float(computed(metric, {name: state[p] for name, state in totals.states.items()})[task.headline])
        for p in range(len(totals.pictures))
    ]


def headline_draws(task: Task, totals_of_seeds: Sequence[PictureTotals], counts: Integers) -> Floats:
    """(R,) the headline metric of each draw, mean over seeds; NaN for a draw without labels of the task.

    Args:
        task: the task of the totals.
        totals_of_seeds: one per seed, all of the same pictures in the same order.
        counts: (R, P), see :func:`resamples`.

    Raises:
        DataError: totals of other pictures.
    """
    assert totals_of_seeds, "there is at least one seed"
    for totals in totals_of_seeds:
        if totals.pictures != totals_of_seeds[0].pictures or len(totals.pictures) != counts.shape[1]:
            raise DataError("the totals to be compared are of different pictures; measure all on the same data")
    mean: Floats = np.mean([_headlines(task, totals, counts) for totals in totals_of_seeds], axis=0)
    return mean


def interval(draws: Floats, level: float = 0.95) -> Interval | None:
    """Percentile interval of the finite draws; None if there are none.

    Args:
        draws: (R,) values; those that are not finite are dropped.
        level: share of the draws inside; the rest is split evenly between both tails.

    Raises:
        OptionError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise OptionError(f"interval: level {level}; set a share between 0 and 1, such as 0.95")
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_interval(a_draws: Floats, b_draws: Floats, level: float = 0.95) -> Interval | None:
    """Interval of a − b in the metric's own unit; draw r of both uses the same pictures."""
    return interval(a_draws - b_draws, level)


def delta_m_draws(
    arms: Mapping[str, Floats], references: Mapping[str, Floats], higher_is_better: Mapping[str, bool]
) -> Floats:
    """(R,) Δm in percent (:mod:`garnish.tasks.metrics.delta_m`) of each draw; NaN if a reference is 0 or missing.

    Args:
        arms: task → the arm's (R,) draws of the headline metric.
        references: task → the reference's draws, on the same pictures.
        higher_is_better: by task.
    """
    (draws,) = {len(values) for values in [*arms.values(), *references.values()]}
    found = np.full(draws, np.nan)
    for r in range(draws):
        theirs = {task: float(values[r]) for task, values in references.items()}
        if all(math.isfinite(value) and value != 0 for value in theirs.values()):
            found[r] = delta_m({task: float(values[r]) for task, values in arms.items()}, theirs, higher_is_better)
    return found


def gap_recovered(arm: float, frozen: float, full: float, higher_is_better: bool) -> tuple[float | None, str | None]:
    """(arm − frozen) / (full − frozen): 0 is no better than heads on a frozen trunk, 1 as good as full fine-tuning.

    It may be below 0 or above 1. The formula also holds for metrics where lower is better, as the sign cancels.

    Args:
        arm: headline metric of the arm.
        frozen: of heads alone on the frozen trunk.
        full: of full fine-tuning.
        higher_is_better: direction of the metric.

    Returns:
        The share and None, or None and the reason: if full fine-tuning is not better than the frozen trunk,
        there is no gap, and the quotient would be meaningless.
    """
    for name, value in (("arm", arm), ("frozen", frozen), ("full", full)):
        if not math.isfinite(value):
            return None, f"{name} has no finite metric"
    if (full <= frozen) if higher_is_better else (full >= frozen):
        return None, f"full fine-tuning ({full:.4g}) is not better than the frozen trunk ({frozen:.4g})"
    return (arm - frozen) / (full - frozen), None


def gap_draws(arm: Floats, frozen: Floats, full: Floats, higher_is_better: bool) -> Floats:
    """(R,) the gap recovered in each draw, NaN where void; see :func:`gap_recovered`.

    If many are void, full fine-tuning is hardly better than the frozen trunk, and the other quotients are
    not meaningful either: see :func:`void_reason`.
    """
    gap = full - frozen
    void = ~((gap > 0) if higher_is_better else (gap < 0))
    return (arm - frozen) / np.where(void, np.nan, gap)


def void_share(draws: Floats) -> float:
    """Share of the draws that are not finite."""
    return float(1 - np.isfinite(draws).mean())


def void_reason(draws: Floats, level: float = 0.95) -> str | None:
    """Why the gap recovered is void as a whole; None if it is not.

    It is void if full fine-tuning is no better than the frozen trunk in more draws than one tail of an interval at
    ``level`` holds, so that the interval of their difference includes 0.
    """
    share = void_share(draws)
    if share <= (1 - level) / 2:
        return None
    return f"full fine-tuning is no better than the frozen trunk in {100 * share:.0f} % of the resampled test sets"


def spread(values: Sequence[float | None]) -> Spread:
    """Mean, minimum and maximum of the finite values of several seeds."""
    kept = tuple(None if value is None or not math.isfinite(value) else float(value) for value in values)
    finite = [value for value in kept if value is not None]
    if not finite:
        return Spread(mean=None, least=None, most=None, values=kept)
    return Spread(mean=math.fsum(finite) / len(finite), least=min(finite), most=max(finite), values=kept)


def dominated(places: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Whether each is Pareto-dominated: another has no less gain at no more cost, and is better in one of them.

    Args:
        places: (gain, cost) of each; None if either is unknown.
    """
    known = [place for place in places if place is not None]
    return [
        mine is not None and any(gain >= mine[0] and cost <= mine[1] and (gain, cost) != mine for gain, cost in known)
        for mine in places
    ]


def _headlines(task: Task, totals: PictureTotals, counts: Integers) -> Floats:
    """(R,) the headline metric of each draw."""
    metric = metric_of(task)
    weights = torch.from_numpy(counts).double()
    pooled: dict[str, Tensor] = {}
    for name, state in totals.states.items():
        # In float64 (integer products are slow), which represents counts of pixels exactly up to 2^53.
        product = weights @ state.double().reshape(len(state), -1)
        if not state.is_floating_point():
            product = product.round().to(state.dtype)
        pooled[name] = product.reshape(len(counts), *state.shape[1:])
    return np.array(
        [
            float(computed(metric, {name: total[r] for name, total in pooled.items()})[task.headline])
            for r in range(len(counts))
        ]
    )
