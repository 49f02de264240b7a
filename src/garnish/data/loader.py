"""Training batches by step number: order and augmentation are pure functions of (seed, step, index).

So a run resumes at any step without replaying, and the numbers of ranks and workers do not change a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from operator import itemgetter
from typing import TypeVar, final

import numpy as np
import torch
from torch.utils.data import DataLoader

from garnish.data.augment import Augment, colour_needs_rgb
from garnish.data.class_points import ClassPoints
from garnish.data.dataset import Batch, Dataset, Sample, collate, read_sample
from garnish.data.worker_signals import heed_parent_only
from garnish.errors import DataError, GarnishError, OptionError

#: What :meth:`StepBatches.each` makes of the pictures of a step.
Made = TypeVar("Made")


@final
class StepBatches:
    """The batches of one rank.

    Epochs follow each other without a gap: position p of the endless sequence of samples is element p mod n of the
    permutation of epoch p div n (of pictures in shards, of the order of :meth:`ShardGroups.order`), and step s takes
    the ``batch_size · world`` positions from s · batch_size · world on, of which each rank has its contiguous share.
    The augmentation's seed is (seed, epoch, index), so a picture never gets the same change in two epochs, even if one
    step spans both. With ``variants`` it is (epoch mod variants, index): each picture has that many versions, which are
    the same for every seed.

    Args:
        dataset: at least one picture.
        batch_size: pictures per rank and step.
        seed: 0 or more.
        augment: random changes; None: unchanged pictures.
        variants: augmented versions of each picture; None: a new one every epoch.
        rank, world: index of this process and the number of processes.
        workers: processes that prepare batches ahead; 0: none.

    Raises:
        DataError: an empty data set. OptionError: a number out of range, or ``augment.colour`` for other bands than
            8-bit RGB.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        variants: int | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if len(dataset) == 0:
            raise DataError(f"{dataset.name}: no pictures; check its folders and split")
        if min(batch_size, 1 if variants is None else variants) < 1 or min(seed, workers) < 0 or not 0 <= rank < world:
            raise OptionError(
                f"batches: batch_size {batch_size}, variants {variants}, seed {seed}, workers {workers}, rank {rank} of"
                f" {world}; need batch_size ≥ 1, variants ≥ 1, seed ≥ 0, workers ≥ 0, 0 ≤ rank < world"
            )
        if augment is not None and augment.colour and not dataset.bands.is_rgb:
            raise OptionError(colour_needs_rgb(augment.colour, dataset.name))
        self.dataset, self.batch_size, self.seed, self.augment = dataset, batch_size, seed, augment
        named = None if augment is None else augment.balance
        self.points = None if named is None else ClassPoints(dataset, named)
        self.variants = variants if augment is not None or variants is None else 1
        self.rank, self.world, self.workers = rank, world, workers
        self._groups = dataset.groups
        self._orders: dict[int, np.ndarray] = {}

    def keys(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of each picture of this rank's batch at ``step``."""
        first = (step * self.world + self.rank) * self.batch_size
        places = (divmod(position, len(self.dataset)) for position in range(first, first + self.batch_size))
        return [(epoch, int(self._order(epoch)[place])) for epoch, place in places]

    def _order(self, epoch: int) -> np.ndarray:
        """(n,) int64 order of an epoch; of pictures in shards that of their groups."""
        if self._groups is None:
            return permutation(len(self.dataset), self.seed, epoch)
        if epoch not in self._orders:
            self._orders = {epoch: self._groups.order(self.seed, epoch), **dict(list(self._orders.items())[:1])}
        return self._orders[epoch]

    def batch_at(self, step: int) -> Batch:
        """The batch of ``step``, made in this process."""
        return self._make(self.keys(step))

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps ``start`` to ``stop`` - 1, prepared ahead by ``workers`` processes.

        Raises:
            DataError: a picture that cannot be read; one line, from a worker as well.
        """
        return self.each(start, stop, self._make)

    def each(self, start: int, stop: int, make: Callable[[list[tuple[int, int]]], Made]) -> Iterator[Made]:
        """``make(keys)`` for the :meth:`keys` of steps ``start`` to ``stop`` - 1, also prepared ahead by workers."""
        if self.workers == 0:
            yield from (make(self.keys(step)) for step in range(start, stop))
            return
        # a generator of its own: DataLoader would otherwise draw from torch's global one
        loader: DataLoader[object] = DataLoader(
            _Keyed(make),  # type: ignore[arg-type]
            batch_sampler=(self.keys(step) for step in range(start, stop)),
            num_workers=self.workers,
            collate_fn=itemgetter(0),
            worker_init_fn=heed_parent_only,
            generator=torch.Generator(),
        )
        for result in loader:
            if isinstance(result, GarnishError):
                raise result
            yield result

    def sample(self, epoch: int, index: int) -> Sample:
        """Picture ``index`` with its augmentation in an epoch."""
        if self.augment is None:
            return read_sample(self.dataset, index)
        seed, found = self.change_seed(epoch, index), None
        points = None if self.points is None else self.points[index]
        if self.augment.size is not None and (opened := self.dataset.windows(index)) is not None:
            found = self.augment.of_windows(opened.size, opened.read, seed, points)
        return self.augment(read_sample(self.dataset, index), seed, points) if found is None else found

    def version(self, epoch: int, index: int) -> object:
        """What :meth:`sample` depends on besides the picture itself."""
        return None if self.augment is None else (self.augment, self.change_seed(epoch, index))

    def change_seed(self, epoch: int, index: int) -> tuple[int, ...]:
        """The seed of a picture's augmentation in an epoch."""
        return (self.seed, epoch, index) if self.variants is None else (epoch % self.variants, index)

    def _make(self, keys: list[tuple[int, int]]) -> Batch:
        return collate([self.sample(epoch, index) for epoch, index in keys])


@lru_cache(maxsize=4)
def permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    """(length,) int64 order of an epoch, a pure function of its arguments."""
    # the 1 keeps this stream apart from the augmentations' (seed, epoch, index)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch), spawn_key=(1,)))).permutation(
        length
    )


class _Keyed:
    """Map-style data set for DataLoader: the keys of a step → ``[make(keys)]``."""

    def __init__(self, make: Callable[[list[tuple[int, int]]], object]) -> None:
        self.make = make

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[object]:
        try:
            return [self.make(keys)]
        except GarnishError as error:  # raised in a worker, it would arrive as a page of traceback
            return [error]
