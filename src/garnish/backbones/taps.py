"""Reading feature maps: rows of a task, and maps that differ between tasks by their own adapters alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from garnish.context import ForwardContext
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
    """

    tap: nn.Module
    x: Tensor
    ctx: ForwardContext

    def of(self, owner: int) -> Tensor:
        """(n, C, H, W): the rows of one owner."""
        assert self.ctx.streams is not None
        own = self.ctx.streams.of_owner(owner).take(self.x, self.ctx.num_images)
        alone = replace(self.ctx, streams=None, ends=False, owner=owner)
        made: Tensor = self.tap.owned.alone(self.tap.layer, own, (), {}, alone)  # type: ignore[union-attr, operator]
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
