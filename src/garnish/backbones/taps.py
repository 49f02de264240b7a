"""Reading feature maps: rows of a task, and maps that differ between tasks by their own adapters alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from garnish.context import Binding, ForwardContext
from garnish.rows import Selection, pick


@dataclass(frozen=True, eq=False)
class TaskMaps:
    """What tasks' own adapters will make of one map of the images.

    A task's map is made when its head reads it: the copies of many tasks are never in memory together, and the head
    finds its own in the cache.

    Attributes:
        tap: where the adapters sit.
        x: (I, C, H, W), the map of the images' own rows.
        ctx: of the pass; its streams begin at the tap.
        binding: of the trunk.
    """

    tap: nn.Module
    x: Tensor
    ctx: ForwardContext
    binding: Binding

    def of(self, owner: int) -> Tensor:
        """(n, C, H, W): the rows of one owner."""
        assert self.ctx.streams is not None
        with self.binding.bound(replace(self.ctx, streams=self.ctx.streams.of_owner(owner), ends=True)):
            made: Tensor = self.tap(self.x)
        return made


def read_maps(
    maps: Sequence[Tensor | TaskMaps], wanted: Mapping[str, Selection], first_forked: int, owner: int
) -> dict[str, list[Tensor]]:
    """The maps of tasks of one owner; tasks that want the same rows get the very same tensors."""
    picked: dict[int, list[Tensor]] = {}
    for selection in wanted.values():
        if id(selection) not in picked:
            where = [selection.rows if index >= first_forked else selection.images for index in range(len(maps))]
            picked[id(selection)] = [
                x.of(owner) if isinstance(x, TaskMaps) else pick(x, w) for x, w in zip(maps, where, strict=True)
            ]
    return {name: picked[id(selection)] for name, selection in wanted.items()}
