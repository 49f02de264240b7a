"""A picture with whatever labels it has, a set of such pictures, and a batch of them.

Shape letters: B pictures of a batch, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torchvision import tv_tensors

from garnish.engine.trunk_start import TrunkState
from garnish.errors import DataError
from garnish.targets.distances import DepthMap
from garnish.targets.unit_vectors import NormalMap
from garnish.tasks.task import Task

__all__ = ["Batch", "Dataset", "DepthMap", "NormalMap", "Sample", "collate", "read_sample"]


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """One picture.

    Attributes:
        image: (3, H, W) uint8 RGB.
        targets: by task name, only the tasks this picture has labels for, each of the tensor type of its task's kind
            (``Task.target``): ``Mask`` (H, W) int64 ids (255: no label) or (1, H, W) float32 in {0, 1, 255 = no label};
            ``DepthMap``; ``NormalMap``.
        name: what messages call it: its file.
        start: what a trunk made of it before, where that was kept.

    Raises:
        DataError: a target of another size than the picture.
    """

    image: tv_tensors.Image
    targets: Mapping[str, Tensor]
    name: str
    start: TrunkState | None = None

    def __post_init__(self) -> None:
        for task, target in self.targets.items():
            if target.shape[-2:] != self.image.shape[-2:]:
                raise DataError(
                    f"{self.name}: label of task {task!r} is {_size(target)}, the picture {_size(self.image)};"
                    " give labels of the picture's size"
                )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return (int(self.image.shape[-2]), int(self.image.shape[-1]))


class Dataset(ABC):
    """Pictures by number; item ``i`` is always the same picture."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call this data set: its folder or description file."""

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """Every task that some picture may have labels for, by name."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    @property
    def checks_labels(self) -> bool:
        """Whether ``self[i]`` never gives a label that its task cannot use; if not, whoever reads it asks the task."""
        return False

    def place(self, index: int) -> tuple[Dataset, int]:
        """The set that picture ``index`` is taken from, and its number there; this one where it has the files."""
        return self, index

    def key(self, index: int) -> str | None:
        """A short digest of what picture ``index`` and its labels are, and of how they are read.

        It changes with the files and with the options of reading, not with the picture's place in the set or with the
        process, so that what was computed of a picture can be kept on disk. None: it cannot be known.
        """
        return None

    def content(self, index: int) -> Mapping[str, str]:
        """What picture ``index`` and its labels are, by aspect ("names of pictures"), without reading them.

        It stays the same where the set is copied or moved; a resumed run compares it. Empty: it cannot be known.
        """
        part, inner = self.place(index)
        return {} if part is self else part.content(inner)


def read_sample(dataset: Dataset, index: int) -> Sample:
    """Picture ``index``, with labels that its tasks can use, whoever wrote the set.

    Raises:
        DataError: what the set raises, or what a task says of a label (ids beyond the classes, a map that is not of 0
            and 1, normals of another length, NaN); unsaid, such pixels count in the loss or a metric, or in one alone.
    """
    sample = dataset[index]
    if not dataset.checks_labels:
        for name, target in sample.targets.items():
            if name in dataset.tasks:
                task, where = dataset.tasks[name], f"{sample.name}: label of task {name!r}"
                if not isinstance(target, task.target.tensor):  # it would move with the picture by another kind's rules
                    wanted = task.target.tensor.__name__
                    raise DataError(f"{where}: is a {type(target).__name__}; give a {wanted}")
                task.check_target(target, where)
    return sample


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one size, with targets stacked over the pictures that have them.

    Attributes:
        images: (B, 3, H, W) float32 in [0, 1]; uint8 where ``start`` is given, for then nobody reads them.
        targets: by task name, (K, …): the layouts of :class:`Sample`, stacked; a task no picture has is left out.
        where: by task name, the position in the batch of each of the K pictures, ascending.
        names: B names.
        start: what a trunk made of the pictures before, where that was kept of all of them.
    """

    images: Tensor
    targets: dict[str, Tensor]
    where: dict[str, list[int]]
    names: list[str]
    start: TrunkState | None = None

    def __len__(self) -> int:
        return len(self.names)

    def tasks_of_rows(self) -> list[list[str]]:
        """For each picture the tasks it has labels for."""
        return [[task for task, rows in self.where.items() if row in rows] for row in range(len(self.names))]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        targets = {task: target.to(device, non_blocking=non_blocking) for task, target in self.targets.items()}
        images = self.images.to(device, non_blocking=non_blocking)
        start = None if self.start is None else self.start.to(device, non_blocking=non_blocking)
        return Batch(images, targets, self.where, self.names, start)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples.

    Raises:
        DataError: pictures of different sizes, or none.
    """
    if not samples:
        raise DataError("a batch needs at least one picture")
    for sample in samples:
        if sample.size != samples[0].size:
            raise DataError(
                f"{samples[0].name} is {_size(samples[0].image)}, {sample.name} {_size(sample.image)}; pictures of a"
                " batch must have one size: set an output size or a batch size of 1"
            )
    where: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        for task in sample.targets:
            where.setdefault(task, []).append(row)
    targets = {task: torch.stack([_plain(samples[r].targets[task]) for r in rows]) for task, rows in where.items()}
    images = torch.stack([_plain(sample.image) for sample in samples])
    names = [sample.name for sample in samples]
    starts = [sample.start for sample in samples if sample.start is not None]
    if len(starts) == len(samples):
        return Batch(images, targets, where, names, TrunkState.stack(starts))
    return Batch(images.to(torch.float32) / 255, targets, where, names)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)


def _size(tensor: Tensor) -> str:
    return f"{tensor.shape[-2]}x{tensor.shape[-1]}"
