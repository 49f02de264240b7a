"""Batches by step number: order and augmentation are pure functions of (seed, step, index).

So a run resumes anywhere without replaying, and neither the number of ranks nor the number of workers changes a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, final

import numpy as np
import torch
from torch.utils.data import DataLoader

from garnish.data.sample import Batch, Dataset, collate
from garnish.data.transforms import Augment
from garnish.errors import DataError, GarnishError, OptionError


@final
class StepBatches:
    """The batches of one rank.

    Epochs follow each other without a gap: position p of the endless sequence of samples is element p mod n of the
    permutation of epoch p div n, and step s takes the ``batch_size · world`` positions from s · batch_size · world
    on, of which each rank has its contiguous share. The augmentation's seed is (seed, epoch, index), so a picture
    never gets the same change in two epochs, also where one step spans both.

    Args:
        dataset: at least one picture.
        batch_size: pictures per rank and step.
        seed: from 0.
        augment: random changes, or None for pictures as they are.
        rank, world: this process and how many there are.
        workers: processes that prepare batches ahead; 0: none.

    Raises:
        DataError: an empty data set. OptionError: a number out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"{dataset.name}: no pictures; check its folders and split")
        if batch_size < 1 or seed < 0 or workers < 0 or not 0 <= rank < world:
            raise OptionError(
                f"batches: batch_size {batch_size}, seed {seed}, workers {workers}, rank {rank} of {world}; need"
                " batch_size ≥ 1, seed ≥ 0, workers ≥ 0, 0 ≤ rank < world"
            )
        self.dataset, self.batch_size, self.seed, self.augment = dataset, batch_size, seed, augment
        self.rank, self.world, self.workers = rank, world, workers

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every picture was seen, rounded up."""
        return -(-len(self.dataset) // (self.batch_size * self.world))

    def keys(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of each picture of this rank's batch at ``step``."""
        first = (step * self.world + self.rank) * self.batch_size
        places = (divmod(position, len(self.dataset)) for position in range(first, first + self.batch_size))
        return [(epoch, int(permutation(len(self.dataset), self.seed, epoch)[place])) for epoch, place in places]

    def batch_at(self, step: int) -> Batch:
        """The batch of ``step``, made in this process."""
        return self._make(self.keys(step))

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps ``start`` to ``stop`` - 1, prepared ahead by ``workers`` processes.

        Raises:
            DataError: a picture that cannot be read; from a worker too in one line.
        """
        if self.workers == 0:
            yield from (self.batch_at(step) for step in range(start, stop))
            return
        # a generator of its own: DataLoader would otherwise draw from torch's global one
        loader: DataLoader[Any] = DataLoader(
            _Keyed(self),  # type: ignore[arg-type]
            batch_sampler=_Steps(self, start, stop),
            num_workers=self.workers,
            collate_fn=_first,
            generator=torch.Generator(),
        )
        for result in loader:
            if isinstance(result, GarnishError):
                raise result
            yield result

    def _make(self, keys: list[tuple[int, int]]) -> Batch:
        samples = []
        for epoch, index in keys:
            sample = self.dataset[index]
            samples.append(self.augment(sample, (self.seed, epoch, index)) if self.augment else sample)
        return collate(samples)


@lru_cache(maxsize=4)
def permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    """(length,) int64 order of an epoch, a pure function of its arguments."""
    # the 1 keeps this stream apart from the augmentations' (seed, epoch, index)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch), spawn_key=(1,)))).permutation(
        length
    )


class _Steps:
    """Batch sampler: the keys of consecutive steps."""

    def __init__(self, batches: StepBatches, start: int, stop: int) -> None:
        self.batches, self.start, self.stop = batches, start, stop

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return (self.batches.keys(step) for step in range(self.start, self.stop))


class _Keyed:
    """Data set of whole batches by their keys."""

    def __init__(self, batches: StepBatches) -> None:
        self.batches = batches

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Batch | GarnishError]:
        try:
            return [self.batches._make(keys)]
        except GarnishError as error:  # raised in the worker it would come back as a page of traceback
            return [error]


def _first(items: list[Batch | GarnishError]) -> Batch | GarnishError:
    return items[0]
