"""A subset of a data set: some of its pictures, with the labels of some of its tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from torchvision import tv_tensors

from garnish.data.dataset import ByWindows, Dataset, Sample
from garnish.data.shard_order import ShardGroups
from garnish.errors import OptionError
from garnish.pictures.bands import Bands
from garnish.tasks.task import Task


@final
class Subset(Dataset):
    """Some pictures of a data set; a picture without labels of the selected tasks is kept.

    Args:
        whole: the data set.
        indices: of the selected pictures, in their new order.
        tasks: names of the selected tasks; None: all.
    """

    def __init__(self, whole: Dataset, indices: Sequence[int], tasks: Sequence[str] | None = None) -> None:
        self.whole = whole
        self.indices = list(indices)
        self._chosen = tasks is not None
        self._tasks = {name: task for name, task in whole.tasks.items() if tasks is None or name in tasks}

    @property
    def name(self) -> str:
        """The name of the whole set."""
        return self.whole.name

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The selected tasks."""
        return self._tasks

    @property
    def bands(self) -> Bands:
        """Those of the whole data set."""
        return self.whole.bands

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        sample = self.whole[self.indices[index]]
        kept = {name: target for name, target in sample.targets.items() if name in self._tasks}
        return dataclasses.replace(sample, targets=kept)

    def image(self, index: int) -> tv_tensors.Image:
        """The picture alone, as the whole data set reads it."""
        return self.whole.image(self.indices[index])

    def windows(self, index: int) -> ByWindows | None:
        """As of the whole data set, with the labels of the selected tasks."""
        found = self.whole.windows(self.indices[index])
        return found if found is None or not self._chosen else found.of_tasks(self._tasks)

    @property
    def groups(self) -> ShardGroups | None:
        """Those of the whole data set."""
        found = self.whole.groups
        return None if found is None else ShardGroups(found.shard[self.indices], found.window)

    def place(self, index: int) -> tuple[Dataset, int]:
        """The whole data set, and the picture's index there."""
        return self.whole, self.indices[index]

    @property
    def checks_labels(self) -> bool:
        """Whether the whole data set checks its labels."""
        return self.whole.checks_labels

    def key(self, index: int) -> str | None:
        """The digest from the whole data set, with the task names if tasks were selected."""
        key = self.whole.key(self.indices[index])
        return f"{key}:{'+'.join(self._tasks)}" if key is not None and self._chosen else key


def thinned(whole: Dataset, *, every: int = 1, limit: int | None = None) -> Subset:
    """Pictures 0, n, 2n, … of a data set.

    Args:
        whole: the data set.
        every: n.
        limit: largest number of pictures, evenly spaced among those that ``every`` keeps.

    Raises:
        OptionError: a number below 1.
    """
    if every < 1 or (limit is not None and limit < 1):
        raise OptionError(f"every {every}, limit {limit}: give numbers from 1")
    kept = range(0, len(whole), every)
    return Subset(whole, [kept[place] for place in chosen(len(kept), limit)])


def chosen(count: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``count`` pictures, evenly spaced, ascending."""
    if limit is None or limit >= count:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, limit).round()]
