"""Exchanging gradients between processes, and warning of trained tensors that get no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import final

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from garnish.model.model import Model
from garnish.training.saved_facts import Watched

#: Labelled steps of a task after which its gradients are judged: if one factor starts at zero (LoRA's B), the
#: other's gradient is zero in the first step and nonzero from the second. MTLoRA's tasks reach fc1 only through such a
#: factor of fc2, so fc1's B gets a gradient one step later and its A in the third step.
JUDGED_AFTER = 3
_NONE, _ZEROS, _SOME = 0, 1, 2
_SHOWN = 4


def reduce_gradients(parameters: Sequence[nn.Parameter], buffers: Sequence[Tensor], fabric: Fabric) -> None:
    """Sum gradients and average floating-point buffers (running statistics) over all processes, in one exchange.

    A parameter without a gradient on any rank keeps None, so that the optimizer skips it, as in one process.
    """
    if fabric.world_size == 1 or not parameters:
        return
    dtype = torch.float64 if parameters[0].dtype == torch.float64 else torch.float32
    has = torch.tensor([p.grad is not None for p in parameters], device=fabric.device).to(dtype)
    grads = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in parameters]
    means = [b.reshape(-1).to(dtype) / fabric.world_size for b in buffers]
    flat = torch.cat([has, *(g.to(dtype) for g in grads), *means])
    fabric.all_reduce(flat, reduce_op="sum")
    sizes = [len(has), *(p.numel() for p in parameters), *(b.numel() for b in buffers)]
    counts, *parts = torch.split(flat, sizes)
    for parameter, count, part in zip(parameters, counts.tolist(), parts, strict=False):
        parameter.grad = part.reshape(parameter.shape).to(parameter.dtype) if count else None
    with torch.no_grad():
        for buffer, part in zip(buffers, parts[len(parameters) :], strict=True):
            buffer.copy_(part.reshape(buffer.shape))


def gradients_of(
    loss: Tensor, parameters: Mapping[str, nn.Parameter], *, keep: bool = True
) -> dict[str, Tensor | None]:
    """Gradient of one task's loss for each tensor, None if the loss does not depend on it; ``keep``: the graph."""
    grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=keep, allow_unused=True)
    return dict(zip(parameters, grads, strict=True))


def trained_for(model: Model, task: str) -> dict[str, nn.Parameter]:
    """The trained tensors that a task's loss should reach: its head's and those of the adapters it uses, by name."""
    mine = model.decoders.reached_by(task)
    for owner in model.owners:
        if task in owner.tasks:
            mine |= set(owner.tensors())
    return {name: parameter for name, parameter in model.trained_parameters().items() if name in mine}


@final
class GradientWatch:
    """Checks each task's own gradients in its first labelled steps, separately from other tasks.

    Args:
        model: the model that is trained.
        tasks: the trained tasks.
        fabric: the processes that share a step.
        seen: what an earlier session of the run saw, from :meth:`seen`; of other tensors it is left out.
    """

    def __init__(
        self, model: Model, tasks: Sequence[str], fabric: Fabric, seen: Mapping[str, Watched] | None = None
    ) -> None:
        self.fabric = fabric
        self.expected = {task: trained_for(model, task) for task in tasks}
        self.best = {task: [_NONE] * len(names) for task, names in self.expected.items()}
        self.count = dict.fromkeys(tasks, 0)
        self._this_step: set[str] = set()
        for task, before in (seen or {}).items():
            if task in self.expected and len(before["grades"]) == len(self.expected[task]):
                self.count[task], self.best[task] = before["steps"], list(before["grades"])

    def seen(self) -> dict[str, Watched]:
        """The steps and grades so far, of all processes, all of which call this."""
        return {task: {"steps": self.count[task], "grades": self._grades(task)} for task in self.expected}

    def judges(self, tasks: Iterable[str]) -> bool:
        """Whether :meth:`observe` would look at the gradients of any of these tasks now, by a backward pass of its own.

        Compiled passes cannot give it: they free what they keep in their first backward pass, and give zeros for None.
        """
        return any(self.count[task] < JUDGED_AFTER and task not in self._this_step for task in tasks)

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Record the gradients of tasks that are not judged yet; call before the backward pass; the graph is kept."""
        for task, loss in losses.items():
            if self.judges([task]):
                self._this_step.add(task)
                self._grade(task, loss, keep=True)

    def observe_alone(self, tasks: Iterable[str], loss_of: Callable[[str], Tensor]) -> None:
        """As :meth:`observe`, of tasks that are due, each from a pass of its own, so that no graph is kept."""
        for task in tasks:
            self._this_step.add(task)
            self._grade(task, loss_of(task), keep=False)

    def _grade(self, task: str, loss: Tensor, *, keep: bool) -> None:
        if loss.requires_grad and self.expected[task]:
            # The factor keeps small gradients from underflowing in float16 products.
            found = gradients_of(loss * 1024, self.expected[task], keep=keep).values()
            grades = [_NONE if g is None else _SOME if bool(g.any()) else _ZEROS for g in found]
            self.best[task] = [max(pair) for pair in zip(self.best[task], grades, strict=True)]

    def end_step(self, updated: bool = True) -> list[str]:
        """End the step (``updated``: the optimizer stepped); return a line for each fault of a task judged now."""
        lines = []
        for task in [t for t in self.count if t in self._this_step]:
            self.count[task] += updated
            if updated and self.count[task] == JUDGED_AFTER:
                lines += self._verdict(task)
        self._this_step.clear()
        return lines

    def silent(self, task: str) -> tuple[list[str], list[str]]:
        """Names of the tensors that had no gradient for a task so far, and of those with only zero gradients."""
        names, found = list(self.expected[task]), self._grades(task)
        return tuple([n for n, g in zip(names, found, strict=True) if g == k] for k in (_NONE, _ZEROS))  # type: ignore[return-value]

    def _grades(self, task: str) -> list[int]:
        """The best grade of each tensor in any process."""
        if self.fabric.world_size == 1:
            return self.best[task]
        grades = torch.tensor(self.best[task], dtype=torch.int64, device=self.fabric.device)
        self.fabric.all_reduce(grades, reduce_op="max")
        found: list[int] = grades.tolist()
        return found

    def _verdict(self, task: str) -> list[str]:
        none, zeros = self.silent(task)
        what = f"of task {task!r} by its labelled step {JUDGED_AFTER}; they do not learn from it: check the"
        lines = [f"{_named(none)} got no gradient {what} {_makers(none)}"] if none else []
        trunk = "or the trunk (timm's zero-initialised last norms)"
        zero = [f"{_named(zeros)} got only zero gradients {what} {_makers(zeros)}, {trunk}"] if zeros else []
        return [*lines, *zero]


def _makers(names: list[str]) -> str:
    """Whether the tensors are of the head, of the method or of both, by their stored names."""
    found = {"head" if name.startswith("heads.") else "method" for name in names}
    return " and the ".join(sorted(found, reverse=True))


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} trained tensors ({', '.join(names[:_SHOWN])}{more})"
