"""A feature map that differs between tasks by their own adapters alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from garnish.context import Binding, ForwardContext


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
