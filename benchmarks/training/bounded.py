"""The levels of a trunk's blocks that keep a step of it alone below a bound, as ``train.memory_gb`` plans them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from garnish.model.report import flop_counter

if TYPE_CHECKING:
    from stepping import Stepper


class AloneSteps:
    """What :func:`garnish.training.memory_plan.plan_levels` asks of a simulated step, from steps of the trunk alone."""

    def __init__(self, stepper: Stepper, trunk: Any) -> None:
        self._stepper, self._trunk = stepper, trunk
        self.num_blocks = len(trunk.levels)

    def peak(self, levels: tuple[str, ...], count: int) -> int:
        """Most bytes alive in a step."""
        self._trunk.memory = levels
        return self._stepper.bytes()["peak"]

    def counts(self, level: str, count: int) -> tuple[list[int], list[int]]:
        """By block, bytes kept and multiply-accumulates of a forward pass at one level."""
        from stepping import Recorder

        self._trunk.memory = level
        kept, macs = [0] * self.num_blocks, [0] * self.num_blocks
        marks: list[tuple[int, int]] = []
        firsts = [unit.module for unit in self._body().units if unit.kind == "residual" and unit.rests]
        present = [*self._stepper.arm.present, self._stepper.images]
        with flop_counter() as counter, Recorder(present) as recorder:

            def reached(*_: object) -> None:
                marks.append((recorder.alive_bytes, counter.get_total_flops() // 2))

            handles = [module.register_forward_pre_hook(reached) for module in firsts]
            handles.append(self._trunk.register_forward_hook(reached))
            loss = self._stepper.loss()
        for handle in handles:
            handle.remove()
        del loss
        for number in range(self.num_blocks):
            kept[number] = marks[number + 1][0] - marks[number][0]
            macs[number] = marks[number + 1][1] - marks[number][1]
        return kept, macs

    def _body(self) -> Any:
        owner = next(iter(self._trunk.owners.values()))
        return owner.root.body(self._trunk.body)


def levels_within(stepper: Stepper, trunk: nn.Module, bound: int) -> tuple[str, ...]:
    """One level a block; a step takes at most ``bound`` bytes with them, if any levels do."""
    from garnish.training.memory_plan import plan_levels

    torch.manual_seed(0)
    return plan_levels(AloneSteps(stepper, trunk), 0, bound).levels  # type: ignore[arg-type]
