"""Look through a set before training: what would fail is an error, what looks wrong a warning; label statistics.

Shape letters: H W pixels, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from garnish.checking.arguments import checked
from garnish.data.dataset import Dataset
from garnish.data.folder import FolderDataset, JoinedDataset
from garnish.data.labels.uncounted import Outside, add_up, left_out, lines_about
from garnish.data.leaks import find_leaks
from garnish.data.subset import chosen
from garnish.errors import DataError, plural
from garnish.files.pictures import is_transparent, open_picture
from garnish.tasks.task import IGNORE, Task

_SHOWN = 10  # findings that a printed report spells out
_TURNED_APART = (
    "have another EXIF orientation than their pictures; write `orientation: stored` ({at}) if they fit the pixels as"
    " the picture's file holds them, `orientation: upright` if they fit the picture as it is shown"
)


@final
@dataclass(frozen=True)
class Finding:
    """One line about one file or one task.

    Attributes:
        severity: "error" (training would fail or learn from nothing), "warning", or "note".
        message: what, where, which values, and what to do.
    """

    severity: str
    message: str


@final
@dataclass
class LabelCounts:
    """Pixels of one task over the pictures that were checked.

    Attributes:
        names: classes; background and foreground of a yes-or-no map; empty for continuous targets.
        pixels: (C,) int64 labelled pixels of each class.
        together: (C,) int64 labelled pixels of the pictures that hold the class.
        labelled: pixels with a label.
        total: all pixels of the task's label maps.
        maps: number of label maps.
        outside: what the files hold and the task's range of values leaves out, by reason.
        orientation: "upright" or "stored": how the description says that they lie.
    """

    names: tuple[str, ...]
    pixels: np.ndarray
    together: np.ndarray
    labelled: int = 0
    total: int = 0
    maps: int = 0
    outside: dict[str, Outside] = field(default_factory=dict)
    orientation: str = "upright"

    @property
    def shares(self) -> dict[str, float]:
        """Class → share of all pixels of the label maps, ignored ones included, in [0, 1]."""
        return {n: float(p) / max(self.total, 1) for n, p in zip(self.names, self.pixels, strict=True)}

    def class_weights(self) -> tuple[float, ...]:
        """Median-frequency weights, one a class (Eigen and Fergus 2015, section 5.1); 1 for a class that never occurs.

        The frequency of a class is its share of the labelled pixels of those pictures that hold it; its weight is the
        median of the frequencies over its own.
        """
        frequency = self.pixels / np.maximum(self.together, 1)
        present = frequency > 0
        if not present.any():
            return tuple(1.0 for _ in self.names)
        middle = float(np.median(frequency[present]))
        return tuple(float(f"{middle / f:.4g}") if f > 0 else 1.0 for f in frequency)


@final
@dataclass(frozen=True)
class Report:
    """What :func:`check` found.

    Attributes:
        pictures: pictures in the set.
        checked: pictures that were read.
        findings: errors first, then warnings and notes.
        labels: task → pixel counts.
    """

    pictures: int
    checked: int
    findings: tuple[Finding, ...]
    labels: Mapping[str, LabelCounts] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[str, ...]:
        """Messages of the errors."""
        return tuple(f.message for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages of the warnings and notes."""
        return tuple(f.message for f in self.findings if f.severity != "error")

    def raise_first(self) -> None:
        """Raise a DataError with the first error, and how many more there are; nothing where there is none."""
        if not self.errors:
            return
        more = len(self.errors) - 1
        others = ", ".join(message.split(": ")[0] for message in self.errors[1:4]) + (", …" if more > 3 else "")
        raise DataError(self.errors[0] + (f" (and {plural(more, 'more error')}: {others})" if more else ""))

    def __str__(self) -> str:
        lines = [f"{self.checked} of {plural(self.pictures, 'picture')} checked"]
        for task, counts in self.labels.items():
            labelled = counts.labelled / max(counts.total, 1)
            turned = ", turned as their pictures are (orientation: stored)" if counts.orientation == "stored" else ""
            lines.append(f"{task}: {plural(counts.maps, 'label map')}, {labelled:.1%} of their pixels labelled{turned}")
            lines += [f"  {name:<24} {share:7.2%}" for name, share in counts.shares.items()]
        for severity in ("error", "warning", "note"):
            found = [f.message for f in self.findings if f.severity == severity]
            lines += [f"{severity}: {message}" for message in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"{severity}: … and {len(found) - _SHOWN} more")
        return "\n".join(lines)


@checked
def check(dataset: Dataset, *, limit: int | None = None) -> Report:
    """Read pictures and labels of a set, and report what is wrong with them; raises nothing for bad data.

    Errors: unreadable pictures and labels, sizes that differ, ids beyond the class count, NaN, values a task refuses,
    an empty set, a task without a single labelled pixel. Warnings: maps of one value, classes that never occur, normals
    that point away from the camera, values that the task's range leaves out (depth beyond ``max_metres``), with their
    share, pictures that other splits hold as well.

    Args:
        dataset: any set; of a folder every label is read even where another of the same picture is bad.
        limit: most pictures to read, evenly spaced; None: all.
    """
    read = chosen(len(dataset), None if limit is None else max(limit, 1))
    if not read:
        return Report(0, 0, (Finding("error", "the set holds no pictures; correct its folder, split or pattern"),))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        seen = list(pool.map(lambda index: _examine(dataset, index), read))
    labels = {task: _sum_counts([s.counts[task] for s in seen if task in s.counts]) for task in dataset.tasks}
    labels = {task: counts for task, counts in labels.items() if counts.maps}
    told = [("error", message) for s in seen for message in s.errors]
    told += _about_tasks(dataset.tasks, seen, labels, complete=len(read) == len(dataset) and not told)
    if through := [s.transparent for s in seen if s.transparent]:
        message = (
            f"{through[0]}: {len(through)} of {len(read)} pictures have transparent pixels, of which the hidden"
            " colour is used; save them without alpha, over the ground that is meant"
        )
        told.append(("warning", message))
    for part in _folders(dataset):
        told += find_leaks(part)
    told.sort(key=lambda line: ("error", "warning", "note").index(line[0]))
    return Report(len(dataset), len(read), tuple(Finding(*line) for line in told), labels)


@dataclass
class _Seen:
    """What one picture showed: errors, pixel counts by task, oddities as (task, what, file), the transparent file."""

    errors: list[str] = field(default_factory=list)
    counts: dict[str, LabelCounts] = field(default_factory=dict)
    odd: list[tuple[str, str, str]] = field(default_factory=list)
    transparent: str | None = None


def _folders(dataset: Dataset) -> list[FolderDataset]:
    if isinstance(dataset, JoinedDataset):
        return [folder for part in dataset.parts for folder in _folders(part)]
    return [dataset] if isinstance(dataset, FolderDataset) else []


def _examine(dataset: Dataset, index: int) -> _Seen:
    while isinstance(dataset, JoinedDataset):
        dataset, index = dataset.place(index)
    seen = _Seen()
    if not isinstance(dataset, FolderDataset):
        try:
            sample = dataset[index]
        except DataError as error:
            seen.errors.append(str(error))
            return seen
        for task, target in sample.targets.items():
            _note(seen, task, dataset.tasks[task], target, sample.name)
        _look_at_files(seen, dataset, index, sample.targets)
        return seen
    picture, size, orientation = dataset.picture_file(index), None, 1
    try:
        pixels, facts = open_picture(picture)
        size, orientation = (pixels.shape[-2], pixels.shape[-1]), facts.orientation
        if is_transparent(picture, facts):
            seen.transparent = str(picture)
    except DataError as error:
        seen.errors.append(str(error))
    arrays: dict[tuple[str, Path], tuple[np.ndarray, int]] = {}
    for task, file in dataset.label_files(index).items():
        try:
            raw, own = dataset.raw(task, file, arrays)
            target = dataset.target(task, raw, file, orientation)
            if size is not None:
                dataset.check_sizes(task, size, orientation, file, own, target, picture)
        except DataError as error:
            seen.errors.append(str(error))
            continue
        _note(seen, task, dataset.tasks[task], target, str(file))
        if size is not None:
            _compare_orientation(seen, dataset, task, file, own, orientation)
    return seen


def _look_at_files(seen: _Seen, dataset: Dataset, index: int, tasks: Iterable[str]) -> None:
    """What is told of the files behind a picture of a set that was made of another."""
    inner, place = dataset.place(index)
    while inner is not dataset:
        dataset, index = inner, place
        inner, place = dataset.place(index)
    if not isinstance(dataset, FolderDataset):
        return
    picture = dataset.picture_file(index)
    facts = open_picture(picture)[1]
    if is_transparent(picture, facts):
        seen.transparent = str(picture)
    for task, file in dataset.label_files(index).items():
        if task in tasks:
            _compare_orientation(seen, dataset, task, file, dataset.raw(task, file, {})[1], facts.orientation)


def _compare_orientation(
    seen: _Seen, dataset: FolderDataset, task: str, file: Path, own: int, orientation: int
) -> None:
    """Keep how labels lie, and tell a label whose EXIF orientation is not its picture's where nothing is stated.

    A label with an error is not counted, and that error is all that is told of it.
    """
    if task not in seen.counts:
        return
    stated = dataset.description.tasks[task].labels.orientation
    seen.counts[task].orientation = stated or "upright"
    if stated is None and own != orientation:
        seen.odd.append((task, _TURNED_APART.format(at=f"tasks.{task}.orientation"), str(file)))


def _note(seen: _Seen, name: str, task: Task, target: Tensor, where: str) -> None:
    """Check one target and count its pixels."""
    values = target.numpy()
    counts = _count(task, target)
    if task.target_kind == "mask" and values.ndim == 2:
        ids, pixels = np.unique(
            values[(values < 0) | ((values >= task.channels) & (values != IGNORE))], return_counts=True
        )
        if len(ids):
            shown = ", ".join(f"{i} ({n} pixels)" for i, n in list(zip(ids, pixels, strict=True))[:5])
            seen.errors.append(
                f"{where}: id {shown}{', …' if len(ids) > 5 else ''}, but {name} has {plural(task.channels, 'class')} "
                f"(0 to {task.channels - 1}, 255 = ignore); write `ignore: {ids[0]}`, list it under `map`, or add the"
                " class"
            )
            return
    else:
        try:
            task.check_target(target, where)
        except DataError as error:
            seen.errors.append(str(error))
            return
    seen.counts[name] = counts
    if oddity := _oddity(task, target):
        seen.odd.append((name, oddity, where))


def _count(task: Task, target: Tensor) -> LabelCounts:
    values, outside = target.numpy(), {}
    if task.target_kind == "mask":
        names = tuple(task.legend())
        if values.ndim == 3 or len(names) != task.channels:
            names = (
                ("background", "foreground")
                if task.channels == 1
                else tuple(f"class {k}" for k in range(task.channels))
            )
        ids = values.ravel().astype(np.int64)
        histogram = np.bincount(ids[(ids >= 0) & (ids < len(names))], minlength=len(names))
        labelled = int(histogram.sum())
    else:
        names, histogram = (), np.zeros(0, np.int64)
        labelled = int(task.labelled(target).sum())
        outside = left_out(task, target)
    total = values.shape[-2] * values.shape[-1]
    return LabelCounts(names, histogram, np.where(histogram > 0, labelled, 0), labelled, total, 1, outside)


def _oddity(task: Task, target: Tensor) -> str | None:
    """What is suspicious about one valid target, None where nothing is."""
    values = target.numpy()
    if task.target_kind == "mask":
        if (values == IGNORE).all():
            return "hold no labelled pixel"
        if values.ndim == 3 and (values[values != IGNORE] == 1).all():
            return "are foreground everywhere; is the map inverted?"
        return "hold one class only" if values.ndim == 2 and values.min() == values.max() else None
    flat = values.reshape(values.shape[0], -1)
    known = flat[:, task.labelled(target).numpy().ravel()]
    if known.shape[1] == 0:
        return "hold no labelled pixel"
    if known.shape[1] > 1 and (known == known[:, :1]).all():
        return "hold one value only"
    if task.target_kind == "normals" and (known[2] > 0).mean() > 0.5:
        return "point away from the camera (z forward, so z of what is seen is below 0); write `flip: [z]` or `axes`"
    return task.oddity(target)


def _sum_counts(several: Sequence[LabelCounts]) -> LabelCounts:
    if not several:
        return LabelCounts((), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return LabelCounts(
        several[0].names,
        np.sum([c.pixels for c in several], axis=0),
        np.sum([c.together for c in several], axis=0),
        sum(c.labelled for c in several),
        sum(c.total for c in several),
        len(several),
        add_up([c.outside for c in several]),
        several[0].orientation,
    )


def _about_tasks(
    tasks: Mapping[str, Task], seen: Sequence[_Seen], labels: Mapping[str, LabelCounts], complete: bool
) -> Iterator[tuple[str, str]]:
    """(severity, message) of each oddity of labels, and of tasks that nothing can be learnt of."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for one in seen:
        for task, what, where in one.odd:
            grouped.setdefault((task, what), []).append(where)
    for (task, what), files in grouped.items():
        if what == "hold no labelled pixel" and len(files) == labels[task].maps:
            continue  # said below, as an error
        yield "warning", f"{files[0]}: {len(files)} of {labels[task].maps} labels of {task} {what}"
    for name, counts in labels.items():
        for line in lines_about(counts.outside, counts.labelled):
            yield "warning", f"{name}: {line}"
        if not counts.labelled:
            yield "error", f"{name}: none of {counts.maps} labels has a labelled pixel; correct `ignore` or `map`"
        elif complete and tasks[name].channels == 1 and counts.names and not counts.pixels[1]:
            yield "warning", f"{name}: no pixel of {counts.maps} labels is foreground; correct `threshold`"
        elif complete and tasks[name].channels > 1:
            absent = [n for n, p in zip(counts.names, counts.pixels, strict=True) if not p]
            if absent:
                shown = ", ".join(absent[:8]) + (f" … ({len(absent)} in all)" if len(absent) > 8 else "")
                yield "warning", f"{name}: no pixel of the classes {shown}; nothing can be learnt of them"
