"""A batch of copies of one picture, with labels of every task: the one that a step's memory is counted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from garnish.data.dataset import Batch, Dataset, Sample, collate
from garnish.engine.trunk_start import TrunkState
from garnish.tasks.task import Task
from garnish.training.train_options import TrainOptions

#: Pictures among which the largest is searched, and gaps in the labels.
_LOOKED_AT = 16


def example_picture(dataset: Dataset, tasks: Mapping[str, Task], options: TrainOptions) -> tuple[Sample, bool]:
    """The largest of the first pictures, augmented, with labels of every task; and whether labels of any are missing.

    Labels that it lacks are those of :meth:`garnish.tasks.task.Task.example`.
    """
    seen = [dataset[i] for i in range(min(len(dataset), _LOOKED_AT))]
    sample = max(seen, key=lambda one: (one.size[0] * one.size[1], len(one.targets)))
    if options.augment is not None:
        sample = options.augment(sample, (options.seed, 0, 0))
    drawn = torch.get_rng_state()
    lacking = {name: task.example(1, sample.size)[0] for name, task in tasks.items() if name not in sample.targets}
    torch.set_rng_state(drawn)
    own = {name: target for name, target in sample.targets.items() if name in tasks}
    is_partial = any(name not in one.targets for one in seen for name in tasks)
    return replace(sample, targets=own | lacking), is_partial


def copies(sample: Sample, count: int, device: torch.device) -> Batch:
    """``count`` copies of a picture as a batch on a device; inside a mode of fake tensors, without values."""
    one = collate([sample]).to(device)
    each = list(range(count))

    def stacked(x: Tensor) -> Tensor:
        return torch.cat([x] * count)

    targets = {name: stacked(target) for name, target in one.targets.items()}
    start = None if one.start is None else TrunkState.stack([one.start] * count)
    return Batch(stacked(one.images), targets, dict.fromkeys(targets, each), one.names * count, start)


def with_gaps(batch: Batch) -> Batch:
    """The batch with one picture fewer that is labelled for each task, another one for each."""
    where: dict[str, list[int]] = {}
    for number, (name, rows) in enumerate(batch.where.items()):
        where[name] = [row for row in rows if row != number % len(batch)]
    targets = {name: batch.targets[name][: len(rows)].clone() for name, rows in where.items() if rows}
    return Batch(batch.images, targets, {name: where[name] for name in targets}, batch.names, batch.start)
