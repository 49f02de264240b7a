"""One training step of a model as :func:`garnish.training.fit.fit` makes it, on real tensors or fake ones.

Shape letters: B pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from garnish.model import Model
from garnish.tasks.task import Task
from garnish.training.optimizer import make_optimizer
from garnish.training.options import TrainOptions


@final
class TrainingStep:
    """A model in training and a batch for it, all of whose pictures have labels of every task.

    The optimizer's state is made here, as if a step had been made before. What looks at values (is the loss finite?)
    is left out, since fake tensors have none; it takes no time to speak of.

    Args:
        model: any model; it is put into training mode.
        batch_size: B.
        size: (H, W) of the pictures.
        options: of the training; its defaults when left out.
    """

    def __init__(
        self, model: Model, batch_size: int, size: tuple[int, int], options: TrainOptions | None = None
    ) -> None:
        self.model = model.train()
        self.options = options or TrainOptions(steps=1)
        self.images = torch.rand(batch_size, 3, *size, device=model.device)
        self.targets = {n: target_of(task, batch_size, size, model.device) for n, task in model.tasks.items()}
        self.parameters = model.trained_parameters()
        self.optimizer = make_optimizer(self.parameters, self.options)
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self) -> None:
        """Forward, each task's loss, backward, clipping, AdamW."""
        tasks = self.model.tasks
        outputs = self.model(self.images)
        losses = {n: tasks[n].loss(tasks[n].sums(out, self.targets[n])) for n, out in outputs.items()}
        torch.stack([tasks[n].loss_weight * loss for n, loss in losses.items()]).sum().backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        if self.options.clip is not None:
            clip_grads_with_norm_(
                self.parameters.values(), self.options.clip, get_total_norm(grads, foreach=True), foreach=True
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> Iterator[Tensor]:
        """All that is there before the step: the model's, the batch, the optimizer's state."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield self.images
        yield from self.targets.values()
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def target_of(task: Task, batch_size: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """A target in the layout of the task: see :meth:`garnish.tasks.task.Task.sums`."""
    if task.target_kind == "mask" and task.channels > 1:
        return torch.zeros(batch_size, *size, dtype=torch.int64, device=device)
    channels = {"mask": 1, "depth": 1, "normals": 3}[task.target_kind]
    return torch.ones(batch_size, channels, *size, device=device)
