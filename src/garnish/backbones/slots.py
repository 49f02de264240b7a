"""Canonical names of a trunk's parameters and buffers, and the modules that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from garnish.backbones.blocks import Stage, Whole
from garnish.backbones.sites import bare, slots_below


def slots_of_trunk(stem: nn.Module, stages: Sequence[Stage]) -> Iterator[tuple[str, nn.Module, str]]:
    """(canonical name, module, attribute) of each parameter and persistent buffer, seen through wrappers."""
    yield from slots_below(stem, "stem")
    for s, stage in enumerate(stages):
        yield from slots_below(stage.enter, f"stages.{s}.enter")
        for b, block in enumerate(stage.blocks):
            for role, residual in block.items():
                at = f"stages.{s}.blocks.{b}.{role}"
                if isinstance(residual, Whole):
                    yield from slots_below(residual.body, at)
                    continue
                for ending, part in bare(bare(residual).branch).parts():
                    yield from slots_below(part, f"{at}{ending}")
        yield from slots_below(stage.leave, f"stages.{s}.leave")
