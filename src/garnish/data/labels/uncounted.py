"""Counts of values in label files that are outside the task's range (depth beyond ``max_metres``), so not labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from garnish.tasks.task import Task


@final
@dataclass(frozen=True)
class Outside:
    """Pixels outside the task's range for one reason.

    Attributes:
        pixels: how many.
        low: their smallest value, in the task's unit.
        high: their largest value.
    """

    pixels: int
    low: float
    high: float


def left_out(task: Task, target: Tensor) -> dict[str, Outside]:
    """Counts for a single target of one channel, by the reason that :meth:`~garnish.tasks.task.Task.outside` gives."""
    found = {}
    for why, pixels in task.outside(target).items():
        if count := int(np.count_nonzero(pixels.numpy())):
            values = target[0][pixels]
            found[why] = Outside(count, float(values.min()), float(values.max()))
    return found


def add_up(several: Iterable[Mapping[str, Outside]]) -> dict[str, Outside]:
    """Sum the counts of several targets."""
    total: dict[str, Outside] = {}
    for one in several:
        for why, new in one.items():
            old = total.get(why, new)
            pixels = new.pixels + (old.pixels if why in total else 0)
            total[why] = Outside(pixels, min(old.low, new.low), max(old.high, new.high))
    return total


def lines_about(outside: Mapping[str, Outside], labelled: int) -> list[str]:
    """One line of a report for each reason.

    Args:
        outside: counts by reason.
        labelled: number of labelled pixels.
    """
    measured = labelled + sum(one.pixels for one in outside.values())
    return [
        f"{one.pixels / measured:.2%} of the measured pixels ({one.pixels} of {measured}) are {why}"
        f" ({one.low:g} to {one.high:g}) and have no label; widen the range if these are measurements"
        for why, one in outside.items()
    ]
