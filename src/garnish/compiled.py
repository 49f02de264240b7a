"""The compiled trunk of a model: one graph serves every mix of tasks; passes of different owners have one each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.rows import Pass


class CompiledTrunk(nn.Module):
    """Runs passes of an adapted backbone through ``torch.compile``."""

    def __init__(self, backbone: Backbone, options: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.run: Any = torch.compile(_ByText(backbone), fullgraph=True, **options)

    def forward(self, images: Tensor, step: Pass) -> tuple[Tensor, ...]:
        """Feature maps of one pass, as of :class:`Backbone`."""
        if step.row_images is not None and step.row_owners is not None:
            for rows in (step.row_images, step.row_owners):
                torch._dynamo.maybe_mark_dynamic(rows, 0)
        # its owner's modules catch up here: within the graph that cannot be traced
        self.backbone.tuned.parts(self.backbone.parents.get(step.present[0], step.present[0]))
        maps: tuple[Tensor, ...] = self.run(images, step.row_images, step.row_owners, " ".join(map(str, step.present)))
        return maps


class _ByText(nn.Module):
    """The trunk with owners given as text: numbers that differ by pass would be made variables of one graph."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(
        self, images: Tensor, row_images: Tensor | None, row_owners: Tensor | None, present: str
    ) -> tuple[Tensor, ...]:
        """As :class:`Backbone`'s; ``present`` holds the owners' numbers with blanks between them."""
        if row_images is not None and row_owners is not None:
            # one number of rows, not two that happen to be equal: what follows divides one by the other
            torch._check(row_images.shape[0] == row_owners.shape[0])
        maps: tuple[Tensor, ...] = self.backbone(images, row_images, row_owners, tuple(map(int, present.split())))
        return maps
