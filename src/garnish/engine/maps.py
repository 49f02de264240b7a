"""Feature maps of one pass by task, and maps that only the tasks' own adapters change, made when they are read.

Shape letters: I images, R rows, n images that a task is asked of, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from garnish.engine.adapted import Adapted
from garnish.engine.context import ForwardContext, Whose


@final
@dataclass(frozen=True, eq=False)
class TaskMaps:
    """One feature map to which the tasks' own adapters are still to be applied.

    A task's map is made when its head reads it, so the maps of many tasks are never in memory together, and the head
    finds its own in the cache.

    Attributes:
        tap: the wrapper that holds the adapters.
        x: (I, C, H, W), the map of the images' own rows.
        ctx: context of the pass; its streams begin at the tap.
    """

    tap: Adapted
    x: Tensor
    ctx: ForwardContext

    def of(self, owner: Whose) -> Tensor:
        """The map of one owner's rows, (n, C, H, W)."""
        streams = self.ctx.streams
        assert streams is not None
        position = next(k for k, other in enumerate(streams.present) if other is owner)
        own = streams.at(position).take(self.x, self.ctx.num_images)
        return self.tap.alone(own, (), {}, replace(self.ctx, streams=None, ends=False, owner=owner))


@final
@dataclass(frozen=True, eq=False)
class Selection:
    """Which rows of the maps of a pass a task reads; None: all; a slice: adjacent rows.

    Attributes:
        owner: the owner of the tasks.
        images: (n,) int64 into the pass's images, for maps before the fork.
        rows: (n,) int64 into the pass's rows, for maps after it.
    """

    owner: Whose
    images: Tensor | slice | None
    rows: Tensor | slice | None


@final
class Maps:
    """The feature maps of one pass.

    Args:
        found: the maps, finest first: (I, C, H, W) before the fork, (R, C, H, W) after it.
        forked: index of the first map after the fork.
        tasks: task → its rows; tasks that read the same rows share one selection object.
    """

    def __init__(self, found: Sequence[Tensor | TaskMaps], forked: int, tasks: Mapping[str, Selection]) -> None:
        self.tasks = tasks
        self._found = found
        self._forked = forked

    def of(self, tasks: Sequence[str]) -> dict[str, list[Tensor]]:
        """Task → its maps, each (n, C, H, W), finest first; tasks that read the same rows get the same tensors."""
        read: dict[int, list[Tensor]] = {}
        for task in tasks:
            wanted = self.tasks[task]
            if id(wanted) not in read:
                read[id(wanted)] = [self._one(x, index, wanted) for index, x in enumerate(self._found)]
        return {task: read[id(self.tasks[task])] for task in tasks}

    def _one(self, x: Tensor | TaskMaps, index: int, wanted: Selection) -> Tensor:
        if isinstance(x, TaskMaps):
            return x.of(wanted.owner)
        return pick(x, wanted.rows if index >= self._forked else wanted.images)


def pick(x: Tensor, where: Tensor | slice | None) -> Tensor:
    """Select rows of x; copies only if they are not adjacent."""
    if where is None:
        return x
    return x[where] if isinstance(where, slice) else x.index_select(0, where)


def index_of(values: Sequence[int], size: int, device: torch.device) -> Tensor | slice | None:
    """Row numbers in the form that :func:`pick` takes: None if they are all of ``size`` rows, a slice, or a tensor."""
    if list(values) == list(range(size)):
        return None
    if list(values) == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.int64, device=device)
