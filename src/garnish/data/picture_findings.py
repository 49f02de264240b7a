"""What is found in one picture of a data set: errors, suspicious labels and pixel counts; and what follows from all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from garnish.data.label_counts import LabelCounts, count_labels
from garnish.data.labels.uncounted import lines_about
from garnish.data.picture_labels import PictureLabels
from garnish.errors import DataError
from garnish.pictures.band_counts import BandCounts
from garnish.tasks.task import Task

#: What is said of labels without a labelled pixel.
NOTHING = "hold no labelled pixel"
_TURNED_APART = (
    "have another EXIF orientation than their pictures; write `orientation: stored` ({at}) if they fit the pixels as"
    " the picture's file holds them, `orientation: upright` if they fit the picture as it is shown"
)


@final
@dataclass
class PictureFindings:
    """What was found in one picture and its labels.

    Attributes:
        errors: messages of what would fail.
        counts: pixel counts by task.
        odd: suspicious labels: task, what is odd as words that follow "labels", the file.
        transparent: the picture's file if it has transparent pixels.
        bands: what was counted of its bands; None: not asked for.
        cause: what its error came from, an exception of somebody's own class; None: nothing else.
    """

    errors: list[str] = field(default_factory=list)
    counts: dict[str, LabelCounts] = field(default_factory=dict)
    odd: list[tuple[str, str, str]] = field(default_factory=list)
    transparent: str | None = None
    bands: BandCounts | None = None
    cause: BaseException | None = None

    def note(self, name: str, task: Task, target: Tensor, where: str) -> None:
        """Check one target of a task called ``name``, and count its pixels; ``where`` is its file."""
        try:
            task.check_target(target, where)
        except DataError as error:
            self.errors.append(str(error))
            return
        counts = self.counts[name] = count_labels(task, target)
        if odd := task.oddity(target) if counts.labelled else NOTHING:
            self.odd.append((name, odd, where))

    def compare_orientation(self, labels: PictureLabels, task: str) -> None:
        """Record the option ``orientation``; if it is not set, warn when label and picture differ in EXIF orientation.

        Labels that were not counted because of an error are skipped, as that error is reported already.
        """
        if task not in self.counts:
            return
        self.counts[task].orientation = labels.description.tasks[task].labels.orientation or "upright"
        if told := turned_apart(labels, task):
            self.odd.append((task, told, str(labels.files[task])))


def turned_apart(labels: PictureLabels, task: str) -> str | None:
    """Words that follow "labels" if label and picture differ in EXIF orientation and ``orientation`` does not say more.

    Raises:
        DataError: a label that cannot be read.
    """
    stated = labels.description.tasks[task].labels.orientation
    if stated is not None or labels.own_orientation(task) == labels.orientation:
        return None
    return _TURNED_APART.format(at=f"tasks.{task}.orientation")


def about_tasks(
    tasks: Mapping[str, Task], odd: Iterable[tuple[str, str, str]], labels: Mapping[str, LabelCounts], complete: bool
) -> Iterator[tuple[str, str]]:
    """(severity, message) for suspicious labels, and for tasks and classes without a labelled pixel.

    Args:
        tasks: of the set.
        odd: suspicious labels of all pictures, as in :class:`PictureFindings`.
        labels: counts over all pictures.
        complete: whether all pictures were read, so that a class that was not seen is not there.
    """
    grouped: dict[tuple[str, str], list[str]] = {}
    for task, what, where in odd:
        grouped.setdefault((task, what), []).append(where)
    for (task, what), files in grouped.items():
        if what == NOTHING and len(files) == labels[task].maps:
            continue  # reported below, as an error
        yield "warning", f"{files[0]}: {len(files)} of {labels[task].maps} labels of {task} {what}"
    for name, counts in labels.items():
        for line in lines_about(counts.outside, counts.labelled):
            yield "warning", f"{name}: {line}"
        if not counts.labelled:
            yield "error", f"{name}: none of {counts.maps} labels has a labelled pixel; correct `ignore` or `map`"
        lacking = lacking_classes(tasks[name], counts) if complete and counts.labelled else None
        if lacking:
            yield "warning", f"{name}: {lacking}"


def lacking_classes(task: Task, counts: LabelCounts) -> str | None:
    """What to say of a task's classes of which no pixel was counted; None: all were, or that is normal."""
    absent: Sequence[str] = [n for n, p in zip(counts.names, counts.pixels, strict=True) if not p]
    return task.target.lacking(absent, counts.maps) if absent else None
