"""The task losses of one step, normalised over the labels of all processes.

Each rank computes its own pictures' sums S_r. With S = Σ_r S_r exchanged as numbers, every rank takes the loss of
``S + (S_r − detach(S_r))``: its value is that of one process with all pictures, bit for bit the same on every rank,
and its gradient is the rank's own part, so that gradients are **summed** over ranks, not averaged.

Shape letters: B pictures, C channels, H W pixels, K entries of a sum vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from lightning.fabric import Fabric
from torch import Tensor

from garnish.data.dataset import Batch
from garnish.model.model import Model
from garnish.tasks.task import Task
from garnish.training.task_losses import task_losses


@final
@dataclass(frozen=True, eq=False)
class StepLosses:
    """The losses of one forward pass on all ranks.

    Attributes:
        losses: task → () loss, for every task with labels on any rank; equal on all ranks.
        stop: a rank wants to stop now.
    """

    losses: dict[str, Tensor]
    stop: bool


@final
class MultiTaskLoss:
    """Computes the losses by task, exchanging their sums between processes.

    Args:
        tasks: the trained tasks.
        fabric: the processes that share a step; None: this one alone.
    """

    def __init__(self, tasks: Mapping[str, Task], fabric: Fabric | None = None) -> None:
        self.tasks = dict(tasks)
        self.fabric = fabric
        self._lengths = dict.fromkeys(tasks, 0)

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch, stop: bool = False) -> StepLosses:
        """Losses of this rank's outputs, task → (n, C, H, W) for the n pictures the batch has labels of."""
        if self.fabric is None or self.fabric.world_size == 1:
            return StepLosses(self.own(outputs, batch), stop)
        sums = {name: self.tasks[name].sums(out, batch.targets[name]) for name, out in outputs.items()}
        total, pictures, stop = self._exchange(self.fabric, sums, batch, stop)
        losses = {}
        for name, task in self.tasks.items():
            if pictures[name]:
                value = total[name]
                losses[name] = task.loss(value + (sums[name] - sums[name].detach()) if name in sums else value)
        return StepLosses(losses, stop)

    def own(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """() losses over this rank's labels alone, by task."""
        return task_losses(self.tasks, outputs, batch.targets)

    def _exchange(
        self, fabric: Fabric, sums: Mapping[str, Tensor], batch: Batch, stop: bool
    ) -> tuple[dict[str, Tensor], dict[str, float], bool]:
        """Sums over all ranks by task, pictures labelled for each, and whether any rank wants to stop."""
        device = fabric.device
        if not all(self._lengths.values()):  # K of each task; all ranks leave this branch at the same step
            lengths = torch.tensor([sums[n].numel() if n in sums else 0 for n in self.tasks], device=device)
            fabric.all_reduce(lengths, reduce_op="max")
            self._lengths = {n: max(k, int(new)) for (n, k), new in zip(self._lengths.items(), lengths, strict=True)}
        parts = [torch.tensor([float(stop), *(float(len(batch.where.get(n, ()))) for n in self.tasks)])]
        parts += [sums[n].detach().cpu() if n in sums else torch.zeros(length) for n, length in self._lengths.items()]
        # Float64, so that the rounding of the exchange is below that of the sums.
        packed = torch.cat([p.double() for p in parts]).to(device)
        fabric.all_reduce(packed, reduce_op="sum")
        head, rest = packed[: len(self.tasks) + 1].tolist(), packed[len(self.tasks) + 1 :].float()
        total = dict(zip(self.tasks, torch.split(rest, list(self._lengths.values())), strict=True))
        return total, dict(zip(self.tasks, head[1:], strict=True)), head[0] > 0


def blame(model: Model, task: Task, name: str, batch: Batch) -> list[str]:
    """Names of the pictures of a batch whose loss of one task is not finite when each is run alone."""
    found = []
    with torch.no_grad():
        for place, row in enumerate(batch.where.get(name, ())):
            start = None if batch.start is None else batch.start.pick(slice(row, row + 1))
            out = model(batch.images[row : row + 1], [name], start)[name]
            loss = task.loss(task.sums(out, batch.targets[name][place : place + 1]))
            if not math.isfinite(float(loss)):
                found.append(batch.names[row])
    return found


def only(batch: Batch, tasks: Mapping[str, Task]) -> Batch:
    """The batch with only the targets of ``tasks``."""
    targets = {name: target for name, target in batch.targets.items() if name in tasks}
    return Batch(batch.images, targets, {name: batch.where[name] for name in targets}, batch.names, batch.start)


def odd_loss(model: Model, tasks: Mapping[str, Task], losses: Mapping[str, float], batch: Batch, fabric: Fabric) -> str:
    """A line on the first loss that is not finite and the pictures that cause it; empty if all are finite."""
    for name, value in losses.items():
        if not math.isfinite(value):
            pictures = blame(model, tasks[name], name, batch)
            rank = f" on rank {fabric.global_rank}" if fabric.world_size > 1 else ""
            which = ", ".join(pictures) if pictures else f"no single picture{rank}, only the step as a whole"
            return f"the loss of task {name!r} is {value}; pictures: {which}"
    return ""
