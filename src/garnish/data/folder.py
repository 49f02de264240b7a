"""Data sets on disk: pictures with label files as a folder or description gives them, and several sets joined.

Shape letters: H W pixels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import final

import torch
from torchvision import tv_tensors

from garnish.checking.arguments import checked
from garnish.checking.plain_data import Json
from garnish.data.dataset import Dataset, Sample
from garnish.data.description import Description
from garnish.data.description_file import read_description
from garnish.data.guess import plain_description
from garnish.data.labels.written import written
from garnish.data.layouts.layout import Layout
from garnish.data.picture_key import digest, stamps
from garnish.data.picture_labels import PictureLabels
from garnish.errors import DataError, OptionError, plural, shown, suggest
from garnish.files.path_text import given_path
from garnish.files.pictures import open_picture
from garnish.output import logger
from garnish.registry import classes, options_of
from garnish.tasks.agreement import TO_FIRST, difference, same_labels
from garnish.tasks.task import Task

_log = logger(__name__)


@checked
def folder(
    source: str | Path | Mapping[str, Json],
    split: str = "train",
    *,
    tasks: Sequence[str] | None = None,
    root: str | Path | None = None,
) -> FolderDataset:
    """Open one split of a data set on disk.

    Args:
        source: a YAML description file, a mapping with the same keys, or a folder (its ``data.yaml``, else a
            published layout, else the usual folder names).
        split: name of the split.
        tasks: names of the tasks to read; None: all in the description.
        root: folder that a mapping's paths are relative to; None: working directory. In YAML it is the file's folder.

    Raises:
        DataError: missing files, an empty split, or a task for which no picture of the split has a label.
        OptionError: an unknown key, option or task.
    """
    if isinstance(source, Mapping):
        return FolderDataset(read_description(source, None if root is None else Path(root)), split, tasks)
    path = given_path(source, "data", DataError)
    if path.is_dir() and (path / "data.yaml").is_file():
        path = path / "data.yaml"
    if (layout := _published(path)) is not None:
        _log.info("%s: no description; read as {layout: %s}", path, layout)
        return FolderDataset(read_description({"layout": layout}, path), split, tasks)
    if path.is_dir() or path.suffix.lower() not in (".yaml", ".yml"):
        return FolderDataset(read_description(plain_description(path), path), split, tasks)
    return FolderDataset(read_description(path), split, tasks)


def _published(path: Path) -> str | None:
    """Name of the published layout that a folder has, None if it has none."""
    known: Mapping[str, type[Layout]] = classes("layouts") if path.is_dir() else {}
    return next((name for name, layout in known.items() if layout.recognised(path)), None)


@final
class FolderDataset(Dataset):
    """One split of a data set on disk; pictures sorted by name.

    Pictures without any label are left out of the split "train". A picture whose label file is missing lacks that task.

    Attributes:
        description: of the data set with all its splits.
        split: name of the split.
    """

    def __init__(self, description: Description, split: str, tasks: Sequence[str] | None = None) -> None:
        known = description.tasks
        for name in tasks or ():
            if name not in known:
                raise OptionError(f"{description.source}: unknown task {shown(name)}{suggest(name, known)}")
        self.description = description
        self.split = split
        self._tasks = {name: entry.task for name, entry in known.items() if tasks is None or name in tasks}
        self._pictures: list[tuple[str, Path]] = []
        self._labels: list[dict[str, Path]] = []
        bare: list[tuple[str, Path]] = []
        for name, path in description.pictures(split):
            wanted = {task: description.label_path(task, split, name) for task in self._tasks}
            labels = {task: file for task, file in wanted.items() if file.is_file()}
            if description.layout is not None and len(labels) < len(wanted):
                task, lacking = next((t, f) for t, f in wanted.items() if t not in labels)
                raise DataError(
                    f"{description.source}: tasks.{task}: no file {lacking}, so split {split!r} is not complete; fetch "
                    f"{description.layout.origin}, or name the other tasks under `tasks`"
                )
            if not labels and split == "train":
                bare.append((name, path))
                continue
            self._pictures.append((name, path))
            self._labels.append(labels)
        first = (bare or self._pictures)[0][0] if not self._pictures else self._pictures[0][0]
        counts = self.describe()
        for task, count in counts.items():
            if not count:
                tried = description.label_path(task, split, first)
                raise DataError(
                    f"{description.source}: tasks.{task}: no picture of split {split!r} has a label; "
                    f"{known[task].labels.labels[0]!r} gave e.g. {tried}; correct the template or leave the task out"
                )
        if bare:
            _log.info("%s, %s: %s without any label left out", description.source, split, plural(len(bare), "picture"))
        for task, count in counts.items():
            if count < len(self):
                _log.info(
                    "%s, %s: %d of %d pictures have labels for %s", description.source, split, count, len(self), task
                )

    @property
    def name(self) -> str:
        """The description file or folder, and the split."""
        return f"{self.description.source} ({self.split})"

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that some picture has a label for, by name."""
        return self._tasks

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        """Picture ``index`` and its targets.

        Raises:
            DataError: a file that cannot be read, a label that differs from its picture in size, values a task rejects.
        """
        path = self.picture_file(index)
        pixels, facts = open_picture(path)
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
        labels = self.labels(index, (image.shape[-2], image.shape[-1]), facts.orientation)
        targets = {task: labels.target(task) for task in labels.files}
        for task, target in targets.items():
            self._tasks[task].check_target(target, str(labels.files[task]))
        return Sample(image=image, targets=targets, name=str(path))

    @property
    def checks_labels(self) -> bool:
        """True: every label is checked when it is read; errors name its file."""
        return True

    def key(self, index: int) -> str | None:
        """Digest of the reading options and of the names, sizes and modification times of the picture's files."""
        picture = self.picture_file(index)
        labels = self._labels[index]
        known, layout = self.description.tasks, self.description.layout
        reading = [(t, _apart(known[t].task, ("weight",)), written(known[t].labels, known[t].task)) for t in labels]
        try:
            files = stamps([picture, *labels.values()], self.description.root)
        except OSError:  # reading the picture raises an error that names the missing file
            return None
        return digest("folder", reading, None if layout is None else _apart(layout, ("path", "tasks")), files)

    def content(self, index: int) -> Mapping[str, str]:
        """Names relative to the root and sizes in bytes of the picture and its label files, and the reading options."""
        picture, labels = self.picture_file(index), self._labels[index]
        root, known = self.description.root, self.description.tasks
        names = {task: (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()
                 for task, file in {"": picture, **labels}.items()}  # fmt: skip
        sizes = [file.stat().st_size if file.is_file() else None for file in (picture, *labels.values())]
        return {
            "names of pictures": names.pop(""),
            "sizes of picture files": str(sizes[0]),
            "names of label files": str(names),
            "sizes of label files": str(sizes[1:]),
            "ways of reading labels": f"[{', '.join(written(known[t].labels, known[t].task) for t in labels)}]",
        }

    def labels(self, index: int, size: tuple[int, int] | None, orientation: int) -> PictureLabels:
        """The labels of picture ``index``, read on demand.

        Args:
            index: of the picture.
            size: (H, W) of the picture; None if it cannot be read.
            orientation: EXIF orientation of the picture.
        """
        name, file = self._pictures[index]
        return PictureLabels(self.description, name, file, self._labels[index], size, orientation)

    def picture_name(self, index: int) -> str:
        """Name of picture ``index``."""
        return self._pictures[index][0]

    def picture_file(self, index: int) -> Path:
        """File of picture ``index``."""
        return self._pictures[index][1]

    def label_files(self, index: int) -> Mapping[str, Path]:
        """Task → label file of picture ``index``; tasks it has no label for are left out."""
        return self._labels[index]

    def describe(self) -> dict[str, int]:
        """Task → number of pictures that have a label for it."""
        return {task: sum(task in labels for labels in self._labels) for task in self._tasks}


@final
class JoinedDataset(Dataset):
    """Several data sets concatenated; each picture keeps the labels it has.

    Attributes:
        parts: the sets, in order.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        if not parts:
            raise DataError("join: no sets given; pass at least one")
        self.parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in parts))
        self._tasks: dict[str, Task] = {}
        for number, part in enumerate(parts, 1):
            for name, task in part.tasks.items():
                known = self._tasks.setdefault(name, task)
                if differs := difference(known, task, "a set before", f"set {number}", TO_FIRST):
                    raise OptionError(f"join: {part.name}: task {name!r}: {differs}")
                self._tasks[name] = same_labels(known, task, f"join: {part.name}: task {name!r}")

    @property
    def name(self) -> str:
        """The names of the parts."""
        return " + ".join(part.name for part in self.parts)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of all parts, by name."""
        return self._tasks

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """Picture ``index`` and its targets, from the data set that it belongs to."""
        part, inner = self.place(index)
        return part[inner]

    @property
    def checks_labels(self) -> bool:
        """Whether all parts check their labels."""
        return all(part.checks_labels for part in self.parts)

    def key(self, index: int) -> str | None:
        """The digest from the data set that the picture belongs to."""
        part, inner = self.place(index)
        return part.key(inner)

    def place(self, index: int) -> tuple[Dataset, int]:
        """The data set that picture ``index`` belongs to, and its index there."""
        index = range(len(self))[index]
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)

    def describe(self) -> dict[str, int]:
        """Task → number of pictures that have a label for it; in a part that is not a folder, all count."""
        total = dict.fromkeys(self._tasks, 0)
        for part in self.parts:
            if isinstance(part, FolderDataset | JoinedDataset):
                counts = part.describe()
            else:
                counts = dict.fromkeys(part.tasks, len(part))
            for task, count in counts.items():
                total[task] += count
        return total


@checked
def join(*datasets: Dataset) -> JoinedDataset:
    """Concatenate data sets; tasks of the same name must be equal.

    Raises:
        OptionError: a task of the same name is of another kind or has other class names or options in two sets. If
        only some sets have class names, these are used for all, which is logged.
    """
    return JoinedDataset(datasets)


def _apart(spec: Task | Layout, left_out: Sequence[str]) -> list[Json]:
    """Class name and options of a task or a layout, without the options in ``left_out``."""
    return [type(spec).__name__, {name: v for name, v in options_of(spec).items() if name not in left_out}]
