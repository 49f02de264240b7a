"""The order of pictures that lie in shards: shards are shuffled, then the pictures of a few of them together.

A shuffle over all pictures would need all shards at once, and fetch each again and again where they do not fit the
cache.

Shape letters: N pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np


@final
@dataclass(frozen=True, eq=False)
class ShardGroups:
    """Which pictures of a data set lie in one shard.

    Attributes:
        shard: (N,) int64, the number of each picture's shard; -1: it lies in none.
        window: shards whose pictures are shuffled together.
    """

    shard: np.ndarray
    window: int

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """(N,) int64 order of an epoch, a pure function of the groups, the seed and the epoch.

        Shards follow each other in a random order; of each ``window`` of them that follow each other, the pictures are
        in a random order. Pictures in no shard lie anywhere among them.
        """
        stream = np.random.SeedSequence((seed, epoch), spawn_key=(1, 1))
        rng = np.random.Generator(np.random.PCG64(stream))
        count, last = len(self.shard), int(self.shard.max(initial=-1))
        alone = last + 1 + np.arange(count)  # a number of its own for each picture that lies in no shard
        numbers, group = np.unique(np.where(self.shard < 0, alone, self.shard), return_inverse=True)
        shuffled = rng.permutation(len(numbers))
        windows = np.empty(len(numbers), np.int64)
        windows[shuffled] = np.maximum(np.cumsum(numbers[shuffled] <= last) - 1, 0) // self.window
        return np.lexsort((rng.permutation(count), windows[group]))


def joined_groups(parts: Sequence[tuple[int, ShardGroups | None]]) -> ShardGroups | None:
    """Of several data sets one after the other, each of so many pictures; None: no part has groups."""
    known = [groups for _, groups in parts if groups is not None]
    if not known:
        return None
    numbers, taken = [], 0
    for count, groups in parts:
        own = np.full(count, -1, np.int64) if groups is None else groups.shard
        numbers.append(np.where(own < 0, -1, own + taken))
        taken += int(own.max(initial=-1)) + 1
    return ShardGroups(np.concatenate(numbers), max(groups.window for groups in known))
