"""The modules of a trunk and its units, the steps of the block loop, in one list.

First the stem; then for each stage its entrance, the residuals of its blocks, and its exit ("leave").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

from torch import nn

from garnish.engine.blocks import Residual, Stage
from garnish.engine.context import Binding


@final
@dataclass(frozen=True, eq=False)
class Unit:
    """One step of the block loop.

    Attributes:
        number: its index in the list.
        name: canonical name of its module: ``stem``, ``stages.0.enter``, ``stages.0.blocks.1.attn``.
        kind: stem, entrance of a stage, residual of a block, or exit of a stage.
        stage: number of the stage, -1 for the stem.
        block: number of the block within the stage, -1 outside blocks.
        rests: a pass can resume before it, as it is not in the middle of a block.
        shows: side networks read the stream after it: it is an entrance or the last residual of its block.
        reads: index of the feature map that is read after it, or None.
        holder, key: parent module and attribute name of its module, where a wrapper is put in its place.
    """

    number: int
    name: str
    kind: Literal["stem", "enter", "residual", "leave"]
    stage: int
    block: int
    rests: bool
    shows: bool
    reads: int | None
    holder: nn.Module
    key: str

    @property
    def module(self) -> nn.Module:
        """The module that runs: the frozen one, or the outermost wrapper around it."""
        found: nn.Module = getattr(self.holder, self.key)
        return found


@final
class Body(nn.Module):
    """The modules that passes run through: the trunk's own, or an owner's copy of them.

    Attributes:
        stem: pictures → the stream, its grid and extra inputs of the blocks.
        taps: one identity module per feature map, where adapters of feature maps attach.
        merged: maps are read after the next stage's entrance (patch merging) instead of at stage ends.
        binding: the object through which the loop hands the context of a pass to the modules.
        units: the steps of the block loop, in forward order.
        walked: what :mod:`garnish.engine.sites` found in a walk over the modules; forgotten when they are copied.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[Stage], num_maps: int) -> None:
        super().__init__()
        self.stem = stem
        self._stages = nn.ModuleList(stages)
        self.taps = nn.ModuleList(nn.Identity() for _ in range(num_maps))
        self.merged = False
        self.binding = Binding()
        self.walked: dict[str, object] = {}
        self.units = tuple(self._listed())
        for unit in self.units:
            if isinstance(unit.module, Residual):
                unit.module.binding = self.binding

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in forward order."""
        return tuple(stage for stage in self._stages if isinstance(stage, Stage))

    def read_merged(self) -> None:
        """From now on, read maps after the next stage's entrance."""
        self.merged = True
        self.units = tuple(self._listed())
        self.walked.clear()

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "walked": {}}

    def _listed(self) -> Iterator[Unit]:
        yield Unit(0, "stem", "stem", -1, -1, True, False, None, self, "stem")
        number, last = 1, len(self._stages) - 1
        for s, stage in enumerate(self.stages):
            at = f"stages.{s}"
            reads = s - 1 if self.merged and s else None
            yield Unit(number, f"{at}.enter", "enter", s, -1, True, True, reads, stage, "enter")
            number += 1
            for b, block in enumerate(stage.blocks):
                for position, role in enumerate(block):
                    first, end = position == 0, position == len(block) - 1
                    name = f"{at}.blocks.{b}.{role}"
                    yield Unit(number, name, "residual", s, b, first, end, None, block, role)
                    number += 1
            reads = s if s == last or not self.merged else None
            yield Unit(number, f"{at}.leave", "leave", s, -1, True, False, reads, stage, "leave")
            number += 1

    def reading(self) -> list[int]:
        """Numbers of the units after which feature maps are read, finest map first."""
        return [unit.number for unit in self.units if unit.reads is not None]

    def spans(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Split ``range(first, end)`` into (start, end) spans that never divide a block."""
        starts = [n for n in range(first, end) if n == first or self.units[n].rests]
        yield from zip(starts, [*starts[1:], end], strict=True)

    def end_of_first_block(self) -> int:
        """Number of the unit that follows the trunk's first block."""
        return next(unit.number + 1 for unit in self.units if unit.kind == "residual" and unit.shows)

    def second_block(self) -> int:
        """Number of the first unit of the trunk's second block; the number of units if there is one block."""
        starts = [unit.number for unit in self.units if unit.kind == "residual" and unit.rests]
        return starts[1] if len(starts) > 1 else len(self.units)

    def rest_before(self, number: int) -> int:
        """The last unit up to ``number`` at which a pass can resume."""
        return max(n for n in range(number + 1) if n == len(self.units) or self.units[n].rests)
