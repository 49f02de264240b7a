"""A training step on a batch of random pictures with example labels, with real or fake tensors.

Shape letters: B pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from garnish.balancing.balancing import balancing_of
from garnish.data.dataset import Batch
from garnish.model.model import Model
from garnish.training.step import TrainingStep
from garnish.training.train_options import TrainOptions


@final
class ExampleStep:
    """A step with default options on a batch whose pictures have labels of every task.

    The optimizer's state is created here, as after a first step; its learning rates are 0.

    Args:
        model: any model; it is put into training mode.
        batch_size: B.
        size: (H, W) of the pictures.
    """

    def __init__(self, model: Model, batch_size: int, size: tuple[int, int]) -> None:
        tasks, options = model.tasks, TrainOptions(steps=1)
        self.training_step = TrainingStep(model.train(), tasks, balancing_of(options.balance).build(tasks), options)
        images = torch.rand(batch_size, len(model.served.bands_of(tasks).names), *size, device=model.device)
        targets = {n: task.example(batch_size, size, model.device) for n, task in tasks.items()}
        each = list(range(batch_size))
        self.batch = Batch(images, targets, dict.fromkeys(tasks, each), list(map(str, each)))
        for parameter in self.training_step.trained.values():
            parameter.grad = torch.zeros_like(parameter)
        for group in self.training_step.optimizer.param_groups:
            group["lr"] = 0.0
        self.training_step.update(None)

    def __call__(self) -> None:
        """Run the step."""
        self.training_step(self.batch)

    def tensors(self) -> Iterator[Tensor]:
        """All tensors that exist before the step: the model's, the batch, the optimizer's state."""
        yield from self.training_step.model.parameters()
        yield from self.training_step.model.buffers()
        yield self.batch.images
        yield from self.batch.targets.values()
        for state in self.training_step.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
