"""Diagnosis: all that the doctor found and counted in a data set, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from garnish.data.label_counts import LabelCounts
from garnish.doctor.fault import Fault
from garnish.targets.histogram import Histogram


@final
@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """What one split holds.

    Attributes:
        pictures: in the split.
        looked: pictures that were looked at.
        unread: pictures of those that could not be read.
        with_labels: task → pictures of the split that have a label file.
        sizes: "WIDTHxHEIGHT" → pictures of that size, the most frequent first.
        counts: task → pixel counts of the valid labels.
        histograms: task → name of the quantity → its histogram over the valid labels.
    """

    pictures: int
    looked: int = 0
    unread: int = 0
    with_labels: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, LabelCounts] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[str, Histogram]] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What :func:`garnish.doctor.examine.examine` found.

    Attributes:
        source: the folder or description, as its messages name it.
        root: the folder that its patterns are relative to.
        tasks: task → name of its class: "Semantic".
        splits: split → what it holds, train, val and test first.
        faults: errors first, then warnings and hints; those that concern most files first.
        checks: names of the checks that ran.
        skipped: what was not looked at, and why, a line each.
        seconds: that it took.
    """

    source: str
    root: str
    tasks: Mapping[str, str]
    splits: Mapping[str, SplitFacts]
    faults: tuple[Fault, ...]
    checks: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: float

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The faults of level "error"."""
        return tuple(fault for fault in self.faults if fault.level == "error")

    def plain(self) -> dict[str, Any]:
        """The same of dicts, lists, text and numbers, for JSON; shares of classes are added to their counts."""
        made: dict[str, Any] = _plain(vars(self))
        for name, facts in self.splits.items():
            for task, counts in facts.counts.items():
                made["splits"][name]["counts"][task]["shares"] = counts.shares
        return made


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _plain(entry) for name, entry in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
