"""``ClassPoints``: where the classes of a set lie, a few pixels of each in each picture, for crops that hold them.

Shape letters: H W pixels of a picture, n points of a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import numpy as np
from torch import Tensor

from garnish.data.dataset import Dataset, read_sample
from garnish.errors import OptionError, shown, suggest
from garnish.pictures.raster import Window
from garnish.tasks.task import Task

#: Pixels that are kept of a class in a picture, and rows that are read at once.
_KEPT, _ROWS = 64, 512

#: Class → (n, 2) int32 rows and columns of some of its pixels.
Points = Mapping[int, np.ndarray]


@final
class ClassPoints:
    """The points of every picture of a set, counted once when it is made: all labels of one task are read.

    Pixels are drawn alike of all of a class in a picture, by a generator that depends on the picture's number alone.

    Args:
        dataset: the pictures.
        name: the task, whose labels are classes.

    Raises:
        OptionError: no such task, or one of quantities.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        if name not in dataset.tasks:
            raise OptionError(f"augment.balance: no task {shown(name)} in {dataset.name}{suggest(name, dataset.tasks)}")
        task = dataset.tasks[name]
        if not task.target.categorical:
            known = [other for other, one in dataset.tasks.items() if one.target.categorical]
            raise OptionError(
                f"augment.balance: labels of {name!r} ({type(task).__name__}) are no classes; name one of"
                f" {', '.join(known) or 'none here'}"
            )
        self._found = [_points(_bands(dataset, index, name), task, index) for index in range(len(dataset))]

    def __getitem__(self, index: int) -> Points:
        """Those of picture ``index``; empty where it has no labels of the task."""
        return self._found[index]


def _bands(dataset: Dataset, index: int, name: str) -> Iterator[tuple[int, Tensor]]:
    """First row and labels of some rows after the other; all at once where the file is not read by windows."""
    opened = dataset.windows(index)
    opened = None if opened is None else opened.of_tasks([name])
    if opened is None:
        target = read_sample(dataset, index).targets.get(name)
        if target is not None:
            yield 0, target
        return
    height, width = opened.size
    for top in range(0, height, _ROWS):
        target = opened.labels(Window(top, 0, min(_ROWS, height - top), width)).get(name)
        if target is not None:
            yield top, target


def _points(bands: Iterator[tuple[int, Tensor]], task: Task, number: int) -> Points:
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence((number,), spawn_key=(2,))))
    counts: dict[int, list[int]] = {}
    samples: dict[int, list[np.ndarray]] = {}
    for top, target in bands:
        values = target.reshape(target.shape[-2:]).long().numpy()
        known = task.labelled(target).reshape(values.shape).numpy()
        for label in np.unique(values[known]).tolist():
            there = np.flatnonzero(known & (values == label))
            counts.setdefault(label, []).append(len(there))
            chosen = there[draw.integers(len(there), size=_KEPT)]
            rows, columns = np.divmod(chosen, values.shape[1])
            samples.setdefault(label, []).append(np.stack([rows + top, columns], 1))
    return {label: _of_bands(counts[label], samples[label], draw) for label in sorted(counts)}


def _of_bands(counts: Sequence[int], samples: Sequence[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """(n, 2): points of all parts, of each as often as it has pixels."""
    shares = np.array(counts) / sum(counts)
    parts = draw.choice(len(counts), size=_KEPT, p=shares)
    found: np.ndarray = np.stack([samples[part][place] for place, part in enumerate(parts)]).astype(np.int32)
    return found
