"""Looking at one picture with all checks, in whichever process."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from garnish.data.folder import FolderDataset
from garnish.data.label_counts import LabelCounts
from garnish.doctor.check import Check
from garnish.doctor.looked import Looked
from garnish.doctor.quantities import histograms
from garnish.errors import DataError, one_line
from garnish.targets.histogram import Histogram
from garnish.tasks.task import Task

#: A check and one entry of what it looks at.
Part = tuple[str, tuple[str, ...]]


@final
@dataclass(frozen=True, eq=False)
class LookingPlan:
    """What is looked at with which checks.

    Attributes:
        datasets: the opened splits.
        checks: by name.
    """

    datasets: Sequence[FolderDataset]
    checks: Mapping[str, type[Check]]
    _parts: dict[tuple[int, str], list[tuple[str, ...]]] = field(default_factory=dict, init=False, repr=False)

    def parts(self, dataset: int, check: str) -> list[tuple[str, ...]]:
        """What a check looks at of the tasks of a split."""
        if (dataset, check) not in self._parts:
            self._parts[dataset, check] = parts_of(self.checks[check], self.datasets[dataset].tasks)
        return self._parts[dataset, check]


@final
@dataclass(eq=False)
class Notes:
    """What was noted of one picture.

    Attributes:
        dataset: number of its split in the plan.
        index: of the picture there.
        size: "WIDTHxHEIGHT"; None: it could not be read.
        counts: task → pixel counts of its valid label.
        histograms: task → quantity → histogram.
        kept: what checks kept.
        crashed: name of a check → what it raised, in one line.
        died: why nothing is noted, in one line: its process ended; None: it was looked at.
    """

    dataset: int
    index: int
    size: str | None = None
    counts: dict[str, LabelCounts] = field(default_factory=dict)
    histograms: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    kept: dict[Part, Any] = field(default_factory=dict)
    crashed: dict[str, str] = field(default_factory=dict)
    died: str | None = None


def parts_of(check: type[Check], tasks: Mapping[str, Task]) -> list[tuple[str, ...]]:
    """What a check looks at of the tasks of a set, each once."""
    return list(dict.fromkeys(tuple(entry) for entry in check.over(tasks)))


def look_at(plan: LookingPlan, dataset: int, index: int) -> Notes:
    """Look at picture ``index`` of a split with all checks; nothing that a check raises ends it."""
    seen, notes = Looked(plan.datasets[dataset], index), Notes(dataset, index)
    if seen.problem is None:
        notes.size = f"{seen.image.shape[-1]}x{seen.image.shape[-2]}"
    for task in seen.files:
        if (counts := seen.counts(task)) is not None:
            notes.counts[task] = counts
        if found := histograms(seen, task):
            notes.histograms[task] = found
    for name, check in plan.checks.items():
        try:
            for entry in plan.parts(dataset, name):
                if (kept := _kept(check, seen, entry)) is not None:
                    notes.kept[name, entry] = kept
        except Exception as error:  # a check of a stranger may raise anything
            notes.crashed[name] = crash(error)
    return notes


def _kept(check: type[Check], seen: Looked, entry: tuple[str, ...]) -> Any | None:
    try:
        return check.look(seen, entry)
    except DataError:  # a file that cannot be read, which the check "reading" tells
        return None


def crash(error: Exception) -> str:
    """What a check raised and where, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({last[0].filename.rpartition('/')[2]}:{last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {one_line(error, 160)}{where}"
