"""``examine``: look at every picture of a data set on disk with all checks, and tell what was found."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

from garnish.checking.arguments import checked
from garnish.checking.bounds import Count, Processes
from garnish.checking.plain_data import Json
from garnish.data.description import Description
from garnish.data.label_counts import LabelCounts, add_counts
from garnish.data.subset import chosen
from garnish.doctor.check import Check, Seen
from garnish.doctor.diagnosis import Diagnosis, SplitFacts
from garnish.doctor.fault import LEVELS, Fault
from garnish.doctor.looking import LookingPlan, Notes, Part, crash
from garnish.doctor.opened_splits import open_splits
from garnish.doctor.processes import looked_at
from garnish.errors import OptionError, plural, suggest
from garnish.registry import classes
from garnish.targets.histogram import Histogram

#: Pictures below which processes take longer to start than to look at them, and most processes unless asked for more.
_FEW, _MOST_JOBS = 48, 8


@checked
def examine(
    source: str | Path | Mapping[str, Json] | Description,
    *,
    splits: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    limit: Count | None = None,
    jobs: Processes | None = None,
    progress: Callable[[int, int], object] | None = None,
    root: str | Path | None = None,
) -> Diagnosis:
    """Look at the pictures and labels of a data set on disk, all splits together.

    Bad data raise no exception but where not even one split can be opened. Memory holds one picture a process, and of
    each picture that was looked at some hundred bytes a check.

    Args:
        source: a description, a folder or a mapping, as :func:`garnish.data.folder.folder` takes it, or a
            description that was read already (:func:`garnish.data.folder.description_of`).
        splits: names of splits; None: all.
        only: names of checks; None: all. Counts and histograms are made in any case.
        limit: largest number of pictures of each split, evenly spaced; None: all.
        jobs: processes; 1: this one; None: as many as there are processors (8 at most), 1 for few pictures. In a
            script, more than one asks for ``if __name__ == "__main__":`` around the call.
        progress: called after each picture with how many are done and how many there are.
        root: folder that a mapping's paths are relative to.

    Raises:
        DataError: no split can be opened. OptionError: no such split or check, or a wrong description.
    """
    started = time.perf_counter()
    checks = chosen_checks(only)
    opened = open_splits(source, splits, root)
    found = _Found(LookingPlan(opened.sets, checks))
    picks = [(k, index) for k, part in enumerate(opened.sets) for index in chosen(len(part), limit)]
    jobs = jobs or (1 if len(picks) < _FEW else min(os.cpu_count() or 1, _MOST_JOBS))
    for done, notes in enumerate(looked_at(found.plan, picks, jobs), 1):
        found.add(notes)
        if progress is not None:
            progress(done, len(picks))
    description = opened.sets[0].description
    skipped = list(opened.skipped)
    for part in opened.sets:
        if limit is not None and limit < len(part):
            skipped.append(f"{part.name}: {limit} of {plural(len(part), 'picture')} looked at, evenly spaced")
    if only is not None:
        skipped.append(f"checks: {', '.join(checks)} alone")
    faults = [*opened.faults, *found.lost(), *found.judged()]
    faults.sort(key=lambda fault: (LEVELS.index(fault.level), -len(fault.files)))
    return Diagnosis(
        source=description.source,
        root=str(description.root),
        tasks={name: type(entry.task).__name__ for name, entry in description.tasks.items()},
        splits=found.facts(),
        faults=tuple(faults),
        checks=tuple(checks),
        skipped=tuple(skipped),
        seconds=time.perf_counter() - started,
    )


def chosen_checks(only: Sequence[str] | None = None) -> dict[str, type[Check]]:
    """Checks by name, "reading" first; those of ``only``, or all.

    Raises:
        OptionError: no such check, two of one name, or one that names a fix and cannot do it.
    """
    known: dict[str, type[Check]] = {}
    found: Mapping[str, type[Check]] = classes("checks")
    for cls in found.values():
        if cls.name in known:
            raise OptionError(f"checks {known[cls.name].__name__} and {cls.__name__} are both called {cls.name!r}")
        if cls.fixes and not any("fixed" in vars(base) for base in cls.__mro__ if base is not Check):
            fix = next(iter(cls.fixes))
            raise OptionError(
                f"check {cls.__name__} of {cls.__module__}: names the fix {fix!r} and has no `fixed`, which does it;"
                " write the method, or leave `fixes` out"
            )
        known[cls.name] = cls
    for name in only or ():
        if name not in known:
            raise OptionError(f"only: no check {name!r}{suggest(name, known, limit=60)}")
    wanted = [name for name in known if only is None or name in only]
    return {name: known[name] for name in sorted(wanted, key=lambda name: name != "reading")}


@final
class _Found:
    """Notes as they come, added up."""

    def __init__(self, plan: LookingPlan) -> None:
        self.plan = plan
        self._kept: dict[Part, list[tuple[int, int, object]]] = {}
        self._counts: dict[tuple[int, str], LabelCounts] = {}
        self._histograms: dict[tuple[int, str], dict[str, Histogram]] = {}
        self._sizes = [Counter[str]() for _ in plan.datasets]
        self._looked = [0] * len(plan.datasets)
        self._crashed: dict[str, list[tuple[int, int, str]]] = {}
        self._died: list[Notes] = []

    def add(self, notes: Notes) -> None:
        at = notes.dataset
        self._looked[at] += 1
        if notes.died is not None:
            self._died.append(notes)
            return
        if notes.size is not None:
            self._sizes[at][notes.size] += 1
        for task, counts in notes.counts.items():
            known = self._counts.get((at, task))
            self._counts[at, task] = counts if known is None else add_counts([known, counts])
        for task, new in notes.histograms.items():
            old = self._histograms.setdefault((at, task), {})
            for name, one in new.items():
                old[name] = old[name] + one if name in old else one
        for part, kept in notes.kept.items():
            self._kept.setdefault(part, []).append((at, notes.index, kept))
        for check, line in notes.crashed.items():
            self._crashed.setdefault(check, []).append((at, notes.index, line))

    def facts(self) -> dict[str, SplitFacts]:
        """Split → what it holds."""
        made = {}
        for at, part in enumerate(self.plan.datasets):
            tasks = [task for task in part.tasks if (at, task) in self._counts]
            made[part.split] = SplitFacts(
                pictures=len(part),
                looked=self._looked[at],
                unread=self._looked[at] - self._sizes[at].total(),
                with_labels=part.describe(),
                sizes=dict(self._sizes[at].most_common()),
                counts={task: self._counts[at, task] for task in tasks},
                histograms={task: self._histograms[at, task] for task in tasks if (at, task) in self._histograms},
            )
        return made

    def lost(self) -> Iterator[Fault]:
        """Errors about pictures whose process died, and checks that raised."""
        for notes in self._died:
            part = self.plan.datasets[notes.dataset]
            file = str(part.picture_file(notes.index))
            yield Fault(
                check="reading",
                level="error",
                message=f"{file}: {notes.died}",
                remedy="look at this file and its labels, or leave them out; --jobs 1 takes less memory",
                split=part.split,
                files=(file,),
                names=(part.picture_name(notes.index),),
            )
        for check, lines in self._crashed.items():
            yield self._crash(check, sorted(lines))

    def judged(self) -> Iterator[Fault]:
        """The findings of all checks."""
        for name, check in self.plan.checks.items():
            for part in [part for part in self._kept if part[0] == name]:
                try:
                    yield from list(check.judge(list(self._seen(self._kept[part])), part[1]))
                except Exception as error:  # a check of a stranger may raise anything
                    yield self._crash(name, [(0, -1, crash(error))])

    def _seen(self, kept: Iterable[tuple[int, int, object]]) -> Iterator[Seen]:
        for at, index, value in sorted(kept, key=lambda one: one[:2]):
            part = self.plan.datasets[at]
            file, labels = part.picture_file(index), part.label_files(index)
            yield Seen(part.split, part.picture_name(index), file, labels, value, part.tasks)

    def _crash(self, check: str, lines: Sequence[tuple[int, int, str]]) -> Fault:
        line = lines[0][2]
        files = [str(self.plan.datasets[at].picture_file(index)) for at, index, _ in lines if index >= 0]
        names = [self.plan.datasets[at].picture_name(index) for at, index, _ in lines if index >= 0]
        where = f"{files[0]}: " if files else ""
        more = f" (and at {plural(len(files) - 1, 'other picture')})" if len(files) > 1 else ""
        return Fault(
            check=check,
            level="error",
            message=f"{where}the check {check!r} itself failed{more}: {line}",
            remedy="correct the check, or name the others with --only",
            files=tuple(files),
            names=tuple(names),
        )
