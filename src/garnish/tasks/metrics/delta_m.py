"""Δm: the mean relative change of the tasks' metrics against single-task references."""

from __future__ import annotations

import math
from collections.abc import Mapping

from garnish.errors import OptionError


def delta_m(
    metrics: Mapping[str, float], references: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Mean relative change of the headline metrics against references, in percent; higher is better.

    ``(100/T) · Σ_i ± (M_i − S_i) / S_i``, minus if lower is better (Maninis et al. 2019, eq. 2).

    Args:
        metrics: M, the headline metric of each task.
        references: S, the same metrics of the reference, e.g. single-task full fine-tuning.
        higher_is_better: task → whether a larger metric is better.

    Raises:
        OptionError: no task, a task missing on one side, or a reference that is 0 or not finite.
    """
    if not metrics:
        raise OptionError("Δm: no task given; give a metric and a reference for at least one task")
    for kind, names in (("metric", metrics), ("reference", references), ("direction", higher_is_better)):
        missing = sorted((set(metrics) | set(references)) - set(names))
        if missing:
            raise OptionError(f"Δm: no {kind} for task {', '.join(missing)}; it needs one for every task")
    total = 0.0
    for task, value in metrics.items():
        reference = references[task]
        if reference == 0 or not math.isfinite(reference):
            raise OptionError(f"Δm: reference of task {task} is {reference}; give a finite value other than 0")
        total += (1 if higher_is_better[task] else -1) * (value - reference) / reference
    return 100 * total / len(metrics)
