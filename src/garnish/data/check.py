"""Checks of a data set before training: errors for what would fail, warnings for suspicious data, label statistics.

Shape letters: H W pixels.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from typing import final

import torch

from garnish.backbones.backbone import Backbone
from garnish.checking.arguments import checked
from garnish.checking.bounds import Count
from garnish.data.band_report import BandFacts, band_facts, band_lines, odd_bands, of_headers
from garnish.data.dataset import Dataset
from garnish.data.folder import FolderDataset
from garnish.data.held.held_dataset import HeldDataset
from garnish.data.held.in_python import in_python
from garnish.data.held.looking import another_each_time
from garnish.data.joined import JoinedDataset
from garnish.data.label_counts import LabelCounts, add_counts
from garnish.data.leaks import find_leaks
from garnish.data.measured_bands import count_image
from garnish.data.picture_findings import PictureFindings, about_tasks
from garnish.data.picture_reading import read_image
from garnish.data.subset import chosen
from garnish.errors import DataError, plural, showable
from garnish.files.pictures import is_transparent, open_picture
from garnish.pictures.band_counts import add_band_counts

#: Items of a set of somebody's own that are read twice, evenly spaced.
_READ_TWICE = 4
_SHOWN = 10  # most findings of a severity in a printed report


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
@dataclass(frozen=True)
class Report:
    """What :func:`check` found.

    Attributes:
        pictures: pictures in the set.
        checked: pictures that were read.
        findings: errors first, then warnings and notes.
        labels: task → pixel counts.
        bands: band → what was counted of it; empty for 8-bit RGB, unless a trunk was given.
        cause: what the first error came from, with its traceback; None: nothing else.
    """

    pictures: int
    checked: int
    findings: tuple[Finding, ...]
    labels: Mapping[str, LabelCounts] = field(default_factory=dict)
    bands: Mapping[str, BandFacts] = field(default_factory=dict)
    cause: BaseException | None = field(default=None, repr=False, compare=False)

    @property
    def errors(self) -> tuple[str, ...]:
        """Messages of the errors."""
        return tuple(f.message for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages of the warnings and notes."""
        return tuple(f.message for f in self.findings if f.severity != "error")

    def raise_first(self) -> None:
        """Raise a DataError with the first error and the number of others; does nothing if there are no errors."""
        if not self.errors:
            return
        more = len(self.errors) - 1
        others = ", ".join(message.split(": ")[0] for message in self.errors[1:4]) + (", …" if more > 3 else "")
        raise DataError(
            self.errors[0] + (f" (and {plural(more, 'more error')}: {others})" if more else "")
        ) from self.cause

    def __str__(self) -> str:
        lines = [f"{self.checked} of {plural(self.pictures, 'picture')} checked"]
        for task, counts in self.labels.items():
            labelled = counts.labelled / max(counts.total, 1)
            turned = ", turned as their pictures are (orientation: stored)" if counts.orientation == "stored" else ""
            lines.append(f"{task}: {plural(counts.maps, 'label map')}, {labelled:.1%} of their pixels labelled{turned}")
            lines += [f"  {name:<24} {share:7.2%}" for name, share in counts.shares.items()]
        if self.bands:
            lines += [
                "bands, in numbers that models take (0 and 1 are the ends of the range):",
                *band_lines(self.bands),
            ]
        for severity in ("error", "warning", "note"):
            found = [f.message for f in self.findings if f.severity == severity]
            lines += [f"{severity}: {message}" for message in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"{severity}: … and {len(found) - _SHOWN} more")
        return "\n".join(map(showable, lines))


@checked
def check(dataset: Dataset, *, limit: Count | None = None, trunk: Backbone | None = None) -> Report:
    """Read the pictures and labels of a data set and report problems; bad data raise no exception.

    Errors: unreadable pictures and labels, sizes that differ, ids beyond the class count, NaN, values a task rejects,
    an empty set, a task without a single labelled pixel. Warnings: constant maps, classes that never occur, normals
    that point away from the camera, values outside the task's range (depth beyond ``max_metres``) with their share,
    tasks without a label, items of :func:`garnish.dataset` that are others when they are read again (a few are, twice),
    pictures that also occur in other splits, bands without data or of one number, far outside their range, or, beside a
    trunk, of a colour that is far from what it was pretrained on.

    Args:
        dataset: any data set; in a folder, every label is read even if another one of the same picture is bad.
        limit: largest number of pictures to read, evenly spaced; None: all.
        trunk: what the bands are compared with; None: nothing, and those of 8-bit RGB are not counted.

    Example:
        >>> report = gn.check(gn.Scenes(2, size=32, tasks=("depth",)))
        >>> report.checked, report.errors
        (2, ())
    """
    read = chosen(len(dataset), None if limit is None else max(limit, 1))
    if not read:
        return Report(0, 0, (Finding("error", "the set holds no pictures; correct its folder, split or pattern"),))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        counts_bands = trunk is not None or not dataset.bands.is_rgb
        seen = list(pool.map(lambda index: _examine(dataset, index, counts_bands), read))
    labels = {task: add_counts([s.counts[task] for s in seen if task in s.counts]) for task in dataset.tasks}
    labels = {task: counts for task, counts in labels.items() if counts.maps}
    told = [("error", message) for s in seen for message in s.errors]
    odd = [one for s in seen for one in s.odd]
    told += about_tasks(dataset.tasks, odd, labels, complete=len(read) == len(dataset) and not told)
    if not told or any(counts.maps for counts in labels.values()):
        told += _without_labels(dataset, labels, len(read))
    told += _changing(dataset, read)
    if through := [s.transparent for s in seen if s.transparent]:
        message = (
            f"{through[0]}: {len(through)} of {len(read)} pictures have transparent pixels, whose hidden colour is"
            " used; save them without alpha, on the intended background"
        )
        told.append(("warning", message))
    for part in _folders(dataset):
        told += find_leaks(part)
        told += [line for line in of_headers(part) if line not in told]
    bands: dict[str, BandFacts] = {}
    if counted := [s.bands for s in seen if s.bands is not None]:
        of_trunk = () if trunk is None else (trunk.mean, trunk.std)
        bands = band_facts(reduce(add_band_counts, counted), dataset.bands, *of_trunk)
        lines = odd_bands(bands, dataset.bands.is_rgb, has_trunk=trunk is not None)
        in_words = str if _folders(dataset) else in_python
        told += [("warning", f"{dataset.name}: {in_words(line)}") for line in lines]
    told.sort(key=lambda line: ("error", "warning", "note").index(line[0]))
    cause = next((s.cause for s in seen if s.errors), None)
    return Report(len(dataset), len(read), tuple(Finding(*line) for line in told), labels, bands, cause)


def _without_labels(dataset: Dataset, labels: Mapping[str, LabelCounts], read: int) -> Iterator[tuple[str, str]]:
    """(severity, message) for each task of which no picture that was read has a label."""
    among = f"none of its {plural(read, 'picture')}" if read == len(dataset) else f"none of {read} of its pictures"
    for task in dataset.tasks:
        if task not in labels:
            yield (
                "warning",
                f"{dataset.name}: {among} has a label of task {task!r}, so it can neither train nor be measured",
            )


def _changing(dataset: Dataset, read: Sequence[int]) -> Iterator[tuple[str, str]]:
    """(severity, message) for the first of a few items that is another one when it is read again."""
    for at in chosen(len(read), _READ_TWICE):
        inner, index = dataset, read[at]
        while (found := inner.place(index))[0] is not inner:
            inner, index = found
        if not isinstance(inner, HeldDataset):
            continue
        with contextlib.suppress(DataError):  # which is told where it is read
            if changed := inner.changes(index):
                yield "warning", f"{inner.name}: {another_each_time(index, changed)}"
                return


def _folders(dataset: Dataset) -> list[FolderDataset]:
    if isinstance(dataset, JoinedDataset):
        return [folder for part in dataset.parts for folder in _folders(part)]
    return [dataset] if isinstance(dataset, FolderDataset) else []


def _examine(dataset: Dataset, index: int, counts_bands: bool) -> PictureFindings:
    while isinstance(dataset, JoinedDataset):
        dataset, index = dataset.place(index)
    seen = PictureFindings()
    if not isinstance(dataset, FolderDataset):
        try:
            sample = dataset[index]
        except DataError as error:
            seen.errors.append(str(error))
            seen.cause = error.__cause__
            return seen
        if counts_bands:
            seen.bands = count_image(sample.image)
        for task, target in sample.targets.items():
            seen.note(task, dataset.tasks[task], target, sample.name)
        _look_at_files(seen, dataset, index, sample.targets)
        return seen
    size, orientation = None, 1
    try:
        size, orientation = _look_at_picture(seen, dataset, index, counts_bands)
    except DataError as error:
        seen.errors.append(str(error))
    labels = dataset.labels(index, size, orientation)
    for task, file in labels.files.items():
        try:
            target = labels.target(task)
        except DataError as error:
            seen.errors.append(str(error))
            continue
        seen.note(task, dataset.tasks[task], target, str(file))
        if size is not None and dataset.bands.is_rgb:
            seen.compare_orientation(labels, task)
    return seen


def _look_at_picture(
    seen: PictureFindings, dataset: FolderDataset, index: int, counts_bands: bool
) -> tuple[tuple[int, int], int]:
    """Size and EXIF orientation of a picture; its bands are counted if asked for, and transparency is noted."""
    files = dataset.picture_files(index)
    if not dataset.bands.is_rgb or len(files) > 1:
        image, orientation = read_image(files, dataset.bands)
    else:
        pixels, facts = open_picture(files[0])
        if is_transparent(files[0], facts):
            seen.transparent = str(files[0])
        image, orientation = torch.from_numpy(pixels).permute(2, 0, 1), facts.orientation
    if counts_bands:
        seen.bands = count_image(image)
    return (image.shape[-2], image.shape[-1]), orientation


def _look_at_files(seen: PictureFindings, dataset: Dataset, index: int, tasks: Iterable[str]) -> None:
    """Check transparency and orientation of the files behind a picture of a derived data set, such as a subset."""
    inner, place = dataset.place(index)
    while inner is not dataset:
        dataset, index = inner, place
        inner, place = dataset.place(index)
    if not isinstance(dataset, FolderDataset) or not dataset.bands.is_rgb:
        return
    picture = dataset.picture_file(index)
    pixels, facts = open_picture(picture)
    if is_transparent(picture, facts):
        seen.transparent = str(picture)
    labels = dataset.labels(index, (pixels.shape[0], pixels.shape[1]), facts.orientation)
    for task in labels.files:
        if task in tasks:
            seen.compare_orientation(labels, task)
