"""Feature maps of one pass, by task, and maps that differ between tasks by their own adapters alone.

Shape letters: I images, R rows, n pictures that want a task, C channels, H W grid.
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
    """What tasks' own adapters will make of one map of the images.

    A task's map is made when its head reads it: the copies of many tasks are never in memory together, and the head
    finds its own in the cache.

    Attributes:
        tap: where the adapters sit.
        x: (I, C, H, W), the map of the images' own rows.
        ctx: of the pass; its streams begin at the tap.
    """

    tap: Adapted
    x: Tensor
    ctx: ForwardContext

    def of(self, owner: Whose) -> Tensor:
        """(n, C, H, W): the rows of one owner."""
        streams = self.ctx.streams
        assert streams is not None
        position = next(k for k, other in enumerate(streams.present) if other is owner)
        own = streams.at(position).take(self.x, self.ctx.num_images)
        return self.tap.alone(own, (), {}, replace(self.ctx, streams=None, ends=False, owner=owner))


@final
@dataclass(frozen=True, eq=False)
class Selection:
    """Where tasks find their rows in the maps of a pass; None stands for all, a slice for rows that lie together.

    Attributes:
        owner: whose tasks they are.
        images: (n,) int64 into the pass's images, for maps from below the fork.
        rows: (n,) int64 into the pass's rows, for maps from above it.
    """

    owner: Whose
    images: Tensor | slice | None
    rows: Tensor | slice | None


@final
class Maps:
    """The feature maps of one pass.

    Args:
        found: of the pass, finest first: (I, C, H, W) before the fork, (R, C, H, W) behind it.
        forked: index of the first map behind the fork.
        tasks: task → its rows; those that want the same rows name the very same selection.
    """

    def __init__(self, found: Sequence[Tensor | TaskMaps], forked: int, tasks: Mapping[str, Selection]) -> None:
        self.tasks = tasks
        self._found = found
        self._forked = forked

    def of(self, tasks: Sequence[str]) -> dict[str, list[Tensor]]:
        """Task → its maps, each (n, C, H, W), finest first; tasks that want the same rows get the very same tensors."""
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
    """Rows of x; a copy only where they do not lie together."""
    if where is None:
        return x
    return x[where] if isinstance(where, slice) else x.index_select(0, where)


def index_of(values: Sequence[int], size: int, device: torch.device) -> Tensor | slice | None:
    """``values`` as :func:`pick` takes them, of ``size`` rows."""
    if list(values) == list(range(size)):
        return None
    if list(values) == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.int64, device=device)
