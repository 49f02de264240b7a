"""The score by which the best evaluation of a run is chosen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

from garnish.errors import OptionError, shown, suggest
from garnish.tasks.task import Task

#: Headline metrics are clamped to at least this before their logarithm is taken.
_FLOOR = 1e-4


class Ranking:
    """Turns the metrics of an evaluation into a score; the largest is the best.

    ``by`` selects the criterion:

    - None: the mean over tasks of ± ln(headline), minus if lower is better. Only relative changes count, so no task
      weighs more because of its unit, and no reference is needed. With one task the order is that of its headline.
    - ``task``: that task's headline.
    - ``task.metric:max`` or ``task.metric:min``: any metric; the suffix may be left out for the headline.

    Args:
        tasks: the tasks that are trained and have labels in the validation data.
        by: the criterion, see above.

    Raises:
        OptionError: an unknown task or metric, or a metric without a direction.
    """

    def __init__(self, tasks: Mapping[str, Task], by: str | None = None) -> None:
        self.tasks = dict(tasks)
        self.by = by
        if by is None:
            return
        name, _, rest = by.partition(".")
        self.metric, _, direction = rest.partition(":")
        if name not in tasks:
            raise OptionError(f"train.best_by: no task {name!r} in the validation data{suggest(name, tasks)}")
        task = tasks[name]
        self.task, self.metric = name, self.metric or task.headline
        if not direction and self.metric != task.headline:
            raise OptionError(
                f"train.best_by: say whether more of {name}.{self.metric} is better: {name}.{self.metric}:max or"
                f" {name}.{self.metric}:min"
            )
        if direction not in ("", "max", "min"):
            raise OptionError(f"train.best_by: {by!r} ends in {direction!r}; choose from max, min")
        known = _metric_names(task)
        if self.metric not in known:
            raise OptionError(
                f"train.best_by: task {name} has no metric {shown(self.metric)}{suggest(self.metric, known)}"
            )
        self.sign = {"max": 1.0, "min": -1.0, "": 1.0 if task.higher_is_better else -1.0}[direction]

    def score(self, metrics: Mapping[str, Mapping[str, float]]) -> float:
        """The score of an evaluation; −∞ if the metrics it needs are missing or not finite."""
        if self.by is not None:
            return _finite(self.sign * metrics[self.task][self.metric])
        terms = []
        for name, task in self.tasks.items():
            value = metrics[name][task.headline]
            if not math.isnan(value):
                terms.append((1 if task.higher_is_better else -1) * math.log(max(value, _FLOOR)))
        return _finite(sum(terms) / len(terms)) if terms else -math.inf


def _metric_names(task: Task) -> list[str]:
    """The names of a task's metrics, read from a metric object without data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*called before the ``update`` method.*")
        return list(task.metric().compute())


def _finite(score: float) -> float:
    return score if math.isfinite(score) else -math.inf
