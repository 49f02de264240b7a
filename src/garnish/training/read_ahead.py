"""Samples read ahead of use, and put together by size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from garnish.data.dataset import Batch, Sample, collate

#: Pictures read ahead while the model runs.
_AHEAD = 4
#: Most pictures that wait for others of their size, as a multiple of the batch size.
_WAITING = 4


def read_ahead(one: Callable[[int], Sample], indices: Sequence[int]) -> Iterator[Sample]:
    """Read samples in order, ahead of use in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Sample]] = []
        try:
            for index in indices:
                waiting.append(pool.submit(one, index))
                if len(waiting) > _AHEAD:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def batches_by_size(samples: Iterable[tuple[int, Sample]], batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Batches of pictures of equal size, with their indices; the number of waiting pictures is bounded."""
    waiting: dict[tuple[int, int], list[tuple[int, Sample]]] = {}

    def batch(size: tuple[int, int]) -> tuple[list[int], Batch]:
        indices, same = zip(*waiting.pop(size), strict=True)
        return list(indices), collate(same)

    for index, sample in samples:
        same = waiting.setdefault(sample.size, [])
        same.append((index, sample))
        if len(same) == batch_size:
            yield batch(sample.size)
        elif sum(map(len, waiting.values())) >= _WAITING * batch_size:
            yield batch(max(waiting, key=lambda s: len(waiting[s])))
    for size in list(waiting):
        yield batch(size)
