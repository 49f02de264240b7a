"""Sample (a picture and its labels), Dataset (the base class of data sets), and Batch with its collate function.

Shape letters: B pictures of a batch, C bands, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map  # the place that default_collate's manual names
from torchvision import tv_tensors

from garnish.data.shard_order import ShardGroups
from garnish.engine.trunk_start import TrunkState
from garnish.errors import DataError
from garnish.pictures.bands import Bands
from garnish.pictures.raster import Window
from garnish.targets.distances import DepthMap
from garnish.targets.unit_vectors import NormalMap
from garnish.tasks.task import Task

__all__ = ["Batch", "Dataset", "DepthMap", "NormalMap", "Sample", "collate", "read_sample"]


#: Types of numbers that targets may have; others cannot be compared with the bounds of a task.
_HELD = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64)


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with its labels.

    Attributes:
        image: (3, H, W) uint8 RGB; of other bands (C, H, W) float32, 0 and 1 at the ends of their range, and NaN
            where there is no data.
        targets: by task name, only the tasks this picture has labels for, each of the tensor type of its task's kind
            (``Task.target``): ``Mask`` (H, W) int64 ids (255: no label) or (1, H, W) float32 in {0, 1, 255 = no label};
            ``DepthMap``; ``NormalMap``.
        name: its file, for messages.
        start: cached state of the trunk after its unchanged first part, if it was kept.

    Raises:
        DataError: a target's size differs from the picture's.
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


class ByWindows(ABC):
    """A picture and its labels, to be read by windows.

    Attributes:
        size: (H, W) of the picture.
    """

    size: tuple[int, int]

    @abstractmethod
    def read(self, window: Window) -> Sample:
        """A window of the picture with its labels, which are checked.

        Raises:
            DataError: damaged files, values that a task rejects.
        """

    @abstractmethod
    def labels(self, window: Window) -> Mapping[str, Tensor]:
        """The labels of a window alone, which are checked, by task."""

    @abstractmethod
    def of_tasks(self, names: Collection[str]) -> ByWindows:
        """The same with the labels of some tasks."""


class Dataset(ABC):
    """Base class of data sets: pictures by index; item ``i`` is always the same picture."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in messages: the folder or description file."""

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """All tasks that pictures may have labels for, by name."""

    @property
    def bands(self) -> Bands:
        """The bands of all pictures; those of ordinary 8-bit RGB unless a class says otherwise."""
        return Bands()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def image(self, index: int) -> tv_tensors.Image:
        """The picture of ``self[index]``."""
        return self[index].image

    @property
    def checks_labels(self) -> bool:
        """Whether ``self[i]`` returns only labels that are valid for their task; if not, :func:`read_sample` checks."""
        return False

    def windows(self, index: int) -> ByWindows | None:
        """Picture ``index`` and its labels for reading by windows; None: it is read as a whole."""
        return None

    @property
    def groups(self) -> ShardGroups | None:
        """Which pictures lie in one file of many, so that training asks for few such files at a time; None: in none."""
        return None

    def place(self, index: int) -> tuple[Dataset, int]:
        """The data set that picture ``index`` comes from and its index there; this one if it has the files itself."""
        return self, index

    def key(self, index: int) -> str | None:
        """A short digest that identifies picture ``index``, its labels and how they are read.

        It changes with the files and the reading options, not with the picture's index or the process, so it can be
        used as the key of a cache on disk. None: unknown.
        """
        return None

    def content(self, index: int) -> Mapping[str, str]:
        """What identifies picture ``index`` and its labels, by aspect ("names of pictures"), without reading pixels.

        It stays the same if the data set is copied or moved; a resumed run compares it. Empty: unknown.
        """
        part, inner = self.place(index)
        return {} if part is self else part.content(inner)


def read_sample(dataset: Dataset, index: int) -> Sample:
    """Read picture ``index`` and check its labels, unless the data set does so itself.

    Raises:
        DataError: an error of the data set, a picture that is not of its bands, or an invalid label (ids beyond the
            class count, a binary map with other values than 0, 1 and 255, normals not of unit length, NaN), which would
            distort loss or metrics unnoticed.
    """
    sample = dataset[index]
    if not dataset.checks_labels:
        if not isinstance(sample, Sample):
            raise DataError(f"{dataset.name}: picture {index} is a {type(sample).__name__}; give a Sample")
        for name, target in sample.targets.items():
            where = f"{sample.name}: label of task {name!r}"
            if name not in dataset.tasks:  # it would be trained on without a check
                raise DataError(f"{where}: the set has no such task ({', '.join(dataset.tasks)}); add it to `tasks`")
            task = dataset.tasks[name]
            if not isinstance(target, task.target.tensor):  # transforms would apply another kind's rules
                wanted = task.target.tensor.__name__
                raise DataError(f"{where}: is a {type(target).__name__}; give a {wanted}")
            if target.dtype not in _HELD:
                raise DataError(f"{where}: holds {target.dtype}; give int64 ids, or float32")
            task.check_target(target, where)
    _check_image(sample, dataset)
    return sample


def _check_image(sample: Sample, dataset: Dataset) -> None:
    """Raise DataError unless a picture is of the type and the number of its set's bands."""
    bands, image = dataset.bands, sample.image
    wanted = torch.uint8 if bands.is_rgb else torch.float32
    if image.ndim != 3 or image.shape[0] != len(bands.names) or image.dtype != wanted:
        raise DataError(
            f"{sample.name}: its picture is {image.dtype} of shape {tuple(image.shape)}, but the bands of the set"
            f" ({len(bands.names)}) ask for {wanted} of ({len(bands.names)}, H, W); give those, or state"
            " `Dataset.bands`"
        )


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one size, with targets stacked over the pictures that have them.

    Attributes:
        images: (B, C, H, W) float32; of 8-bit RGB (B, 3, H, W) in [0, 1], or uint8 if ``start`` is given, as they are
            then not used; of other bands with NaN where there is no data.
        targets: by task name, (K, …): targets as in :class:`Sample`, stacked; tasks without any label are left out.
        where: by task name, the position in the batch of each of the K pictures, ascending.
        names: names of the B pictures.
        start: cached state of the trunk for the pictures, if it was kept for all of them.
    """

    images: Tensor
    targets: dict[str, Tensor]
    where: dict[str, list[int]]
    names: list[str]
    start: TrunkState | None = None

    def __len__(self) -> int:
        return len(self.names)

    def tensors(self) -> list[Tensor]:
        """All tensors of the batch."""
        start = () if self.start is None else (x for _, x in self.start.named())
        return [self.images, *self.targets.values(), *start]

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
    """Stack samples into a batch.

    Raises:
        DataError: pictures of different sizes, or of different numbers or types of bands; no samples.

    Example:
        >>> batch = gn.collate(list(gn.Scenes(2, size=32, tasks=("depth",))))
        >>> batch.images.shape, batch.where
        (torch.Size([2, 3, 32, 32]), {'depth': [0, 1]})
    """
    if not samples:
        raise DataError("a batch needs at least one picture")
    for sample in samples:
        if sample.size != samples[0].size:
            raise DataError(
                f"{samples[0].name} is {_size(samples[0].image)}, {sample.name} {_size(sample.image)}; pictures of a"
                " batch must have one size: set an output size or a batch size of 1"
            )
        if (sample.image.shape[0], sample.image.dtype) != (samples[0].image.shape[0], samples[0].image.dtype):
            raise DataError(
                f"{samples[0].name} has {_channels(samples[0].image)}, {sample.name} {_channels(sample.image)};"
                " pictures of a batch must have the same bands"
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
    if images.dtype == torch.uint8:
        images = images.to(torch.float32) / 255
    return Batch(images, targets, where, names)


def _collated(samples: Sequence[Sample], *, collate_fn_map: object = None) -> Batch:
    """:func:`collate` with the signature that torch asks for."""
    return collate(samples)


# so that a DataLoader without collate_fn makes the same batches
default_collate_fn_map[Sample] = _collated


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)


def _channels(image: Tensor) -> str:
    return f"{image.shape[0]} channels of {str(image.dtype).removeprefix('torch.')}"


def _size(tensor: Tensor) -> str:
    return f"{tensor.shape[-2]}x{tensor.shape[-1]}"
