"""A trunk run through ``torch.compile``: one graph serves every mix of tasks whose owners share a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from garnish.engine.context import Rows
from garnish.engine.maps import TaskMaps
from garnish.engine.owner import Owner
from garnish.engine.shared_passes import Pass
from garnish.engine.trunk import Trunk


@final
class CompiledTrunk:
    """Runs passes of an adapted trunk through ``torch.compile``; not a module, as the model already holds the trunk.

    Attributes:
        options: keyword arguments of ``torch.compile``.
    """

    def __init__(self, trunk: Trunk, options: dict[str, Any]) -> None:
        self.trunk = trunk
        self.options = options
        self.run: Callable[..., tuple[Tensor, ...]] = torch.compile(_ByText(trunk), fullgraph=True, **options)

    def __call__(self, images: Tensor, step: Pass) -> tuple[Tensor | TaskMaps, ...]:
        """Feature maps of one pass, as :meth:`garnish.backbones.backbone.Backbone.forward` gives them."""
        tables: tuple[Tensor | None, ...] = (None, None)
        if step.rows is not None:
            tables = (step.rows.images, step.rows.owners)
            for rows in (step.rows.images, step.rows.owners):
                torch._dynamo.maybe_mark_dynamic(rows, 0)
        # the owner's own modules are synchronised here, as this cannot be traced within the graph
        step.present[0].root.catch_up(self.trunk.body)
        try:
            maps: tuple[Tensor, ...] = self.run(images, *tables, " ".join(str(owner.number) for owner in step.present))
        except Exception:
            if all(str(owner.number) in self.trunk.owners for owner in step.present):
                raise
            # an owner was removed meanwhile and the graph cannot look it up; finish the pass uncompiled
            return self.trunk(images, step.present, step.rows)  # type: ignore[no-any-return]
        return maps


@final
class _ByText(nn.Module):
    """The trunk with owners given as text, a constant of the graph; integers would be traced as variables."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(
        self, images: Tensor, row_images: Tensor | None, row_owners: Tensor | None, present: str
    ) -> tuple[Tensor | TaskMaps, ...]:
        """Feature maps of one pass; ``present`` holds the owners' numbers separated by spaces."""
        owners: list[Owner] = [self.trunk.owners[number] for number in present.split()]  # type: ignore[misc]
        if row_images is None or row_owners is None:
            return self.trunk(images, tuple(owners))  # type: ignore[no-any-return]
        # tell the compiler that both sizes are the same number: one is divided by the other later
        torch._check(row_images.shape[0] == row_owners.shape[0])
        rows = Rows(row_images, row_owners, tuple(owners), None)
        return self.trunk(images, tuple(owners), rows)  # type: ignore[no-any-return]
