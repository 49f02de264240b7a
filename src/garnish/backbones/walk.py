"""A walk over a whole trunk in forward order: its sites, its tensors, and where each feature map is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from garnish.backbones.blocks import Stage, Whole
from garnish.backbones.sites import Site, bare, sites_below, slots_below


def sites_of_trunk(
    stem: nn.Module, stages: Sequence[Stage], taps: nn.ModuleList, merged: bool
) -> Iterator[tuple[Site, nn.Module]]:
    """Every place an adapter can sit, with what stands there now; units count as the block loop runs."""
    yield from sites_below(stem, "stem", "stem", -1, -1, 0)
    features = feature_units(stages, merged)

    def feature(index: int) -> tuple[Site, nn.Module]:
        return Site(f"features.{index}", "feature", "feature", "feature", index, -1, features[index]), taps[index]

    unit = 0
    for s, stage in enumerate(stages):
        unit += 1
        yield from sites_below(stage.enter, f"stages.{s}.enter", "enter", s, -1, unit)
        if s and merged:
            yield feature(s - 1)
        for b, block in enumerate(stage.blocks):
            for role, residual in block.items():
                unit += 1
                yield from _sites_of_residual(residual, f"stages.{s}.blocks.{b}.{role}", role, s, b, unit)
        unit += 1
        yield from sites_below(stage.leave, f"stages.{s}.leave", "leave", s, -1, unit)
        if s == len(stages) - 1 or not merged:
            yield feature(s)


def _sites_of_residual(
    residual: nn.Module, name: str, role: str, stage: int, block: int, unit: int
) -> Iterator[tuple[Site, nn.Module]]:
    if isinstance(residual, Whole):
        yield from sites_below(residual.body, name, role, stage, block, unit)
        return
    yield Site(name, "residual", role, role, stage, block, unit), residual
    inner = bare(residual).branch
    yield Site(f"{name}.branch", "branch", role, "branch", stage, block, unit), inner
    branch = bare(inner)
    for ending, part in branch.parts():
        if not ending:
            yield Site(f"{name}.sublayer", "sublayer", role, "sublayer", stage, block, unit), part
        yield from sites_below(part, f"{name}{ending}", role, stage, block, unit)
    yield Site(f"{name}.beside", "beside", role, "beside", stage, block, unit), branch.beside


def feature_units(stages: Sequence[Stage], merged: bool) -> list[int]:
    """The unit that reads each feature map: a stage's last, or the next stage's entrance where maps are merged."""
    units: list[int] = []
    unit = 0
    for index, stage in enumerate(stages):
        unit += 2 + sum(len(block) for block in stage.blocks)
        units.append(unit + 1 if merged and index < len(stages) - 1 else unit)
    return units


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
