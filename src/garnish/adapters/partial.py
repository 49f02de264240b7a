"""Partial fine-tuning: train the last blocks, in place (Yosinski et al., NeurIPS 2014; the VPT paper's Partial-k)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from garnish.adapters.places import parameters, require
from garnish.checking.plain_data import integers
from garnish.engine.adapter import Method, Plan
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError


@final
@dataclass(frozen=True, kw_only=True)
class Partial(Method):
    """Every parameter of the last ``blocks`` blocks is trained in place: the identity at the start.

    Blocks are counted from the end of the trunk, across stages; layers between and after them (patch merging, the norm
    at a stage's end) stay frozen. The trunk's dropout and drop-path stay off. Tuned values cannot differ by row, so
    each owner needs a pass of its own.

    Attributes:
        blocks: number of blocks to train.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Partial(blocks=2), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        1601537
    """

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"blocks": (1, 2, 4)}

    blocks: Annotated[int, integers(1, 4_096)] = 1

    def plan(self, backbone: Trunk) -> Plan:
        """All parameters of the last blocks as tuned, no adapter."""
        there = [f"stages.{s}.blocks.{b}." for s, st in enumerate(backbone.stages) for b in range(len(st.blocks))]
        require(there, "Partial", backbone, "blocks")
        if self.blocks > len(there):
            raise SiteError(
                f"Partial.blocks: {backbone.name} has {len(there)} blocks, not {self.blocks}; use {len(there)} or less"
            )
        chosen = tuple(there[-self.blocks :])
        return Plan(tuned=tuple(n for n, _ in parameters(backbone) if n.startswith(chosen)))
