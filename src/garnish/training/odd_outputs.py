"""Recording outputs of an evaluation that are not finite: they would decode to some class, so metrics would be wrong.

Shape letters: K pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from lightning.fabric import Fabric
from torch import Tensor

from garnish.checking.finite import odd_rows, why_odd
from garnish.data.dataset import Batch
from garnish.errors import GarnishError
from garnish.model.model import Model


@final
class OddOutputs:
    """Collects, by task, the pictures on which a model's output is not finite.

    Args:
        model: the evaluated model.
        fabric: processes that share the pictures; None: this one alone.

    Attributes:
        tasks: task with such outputs → number of pictures; of all processes after :meth:`exchange`.
    """

    def __init__(self, model: Model, fabric: Fabric | None = None) -> None:
        self.model, self.fabric = model, fabric
        self.world = 1 if fabric is None else fabric.world_size
        self.tasks: dict[str, int] = {}
        self._mine: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def keep_finite(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The outputs (K, …) of a batch, without tasks where a row is not finite; those are recorded."""
        odd = odd_rows(outputs)
        for task, rows in odd.items():
            self._mine[task] = self._mine.get(task, 0) + len(rows)
            self._first.setdefault(task, batch.names[batch.where[task][rows[0]]])
        if odd and self.world == 1:
            self.tasks = self._mine
        return {task: out for task, out in outputs.items() if task not in odd}

    def exchange(self, tasks: Sequence[str]) -> None:
        """Sum the counts over all processes; ``tasks`` must have the same order on each."""
        if self.fabric is None or self.world == 1:
            return
        counts = torch.tensor([self._mine.get(task, 0) for task in tasks], device=self.fabric.device)
        total = self.fabric.all_reduce(counts, reduce_op="sum")
        assert isinstance(total, Tensor)
        self.tasks = {task: int(n) for task, n in zip(tasks, total.tolist(), strict=True) if n}

    def line(self) -> str:
        """One line on the first such task: its pictures and the cause; empty if there is none."""
        if not self.tasks:
            return ""
        task, count = next(iter(self.tasks.items()))
        where = f"picture {self._first[task]}" if task in self._first else "a picture of another process"
        where += f" and {count - 1} more" if count > 1 else ""
        others = f" (likewise {', '.join(list(self.tasks)[1:])})" if len(self.tasks) > 1 else ""
        return f"the output of task {task!r}{others} is not finite on {where}, {why_odd(self.model.all_tensors())}"

    def raise_first(self) -> None:
        """Raise GarnishError with :meth:`line` unless it is empty."""
        if self.tasks:
            raise GarnishError(f"evaluate: {self.line()}")
