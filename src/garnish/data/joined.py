"""Several data sets as one, one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import final

from torchvision import tv_tensors

from garnish.checking.arguments import checked
from garnish.data.dataset import ByWindows, Dataset, Sample
from garnish.data.folder import FolderDataset
from garnish.data.shard_order import ShardGroups, joined_groups
from garnish.errors import DataError, OptionError
from garnish.pictures.band_agreement import bands_differ
from garnish.pictures.bands import Bands
from garnish.tasks.agreement import TO_FIRST, difference, same_labels
from garnish.tasks.task import Task


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
            if differs := bands_differ(parts[0].bands, part.bands, "the first set", f"set {number}"):
                raise OptionError(f"join: {part.name}: {differs}")
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

    @property
    def bands(self) -> Bands:
        """Those of the first part, which mean the same as those of all others."""
        return self.parts[0].bands

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """Picture ``index`` and its targets, from the data set that it belongs to."""
        part, inner = self.place(index)
        return part[inner]

    def image(self, index: int) -> tv_tensors.Image:
        """The picture alone, from the data set that it belongs to."""
        part, inner = self.place(index)
        return part.image(inner)

    def windows(self, index: int) -> ByWindows | None:
        """Those of the data set that the picture belongs to."""
        part, inner = self.place(index)
        return part.windows(inner)

    @property
    def checks_labels(self) -> bool:
        """Whether all parts check their labels."""
        return all(part.checks_labels for part in self.parts)

    def key(self, index: int) -> str | None:
        """The digest from the data set that the picture belongs to."""
        part, inner = self.place(index)
        return part.key(inner)

    @property
    def groups(self) -> ShardGroups | None:
        """Those of the parts; pictures of a part that has none lie anywhere among the others."""
        return joined_groups([(len(part), part.groups) for part in self.parts])

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
    """Concatenate data sets; tasks of the same name must be equal, and the bands of their pictures.

    Raises:
        OptionError: other bands, or a task of the same name that is of another kind or has other class names or
        options in two sets. If only some sets have class names, these are used for all, which is logged.

    Example:
        >>> len(gn.join(gn.Scenes(2), gn.Scenes(3, seed=1)))
        5
    """
    return JoinedDataset(datasets)
