"""The training step of a run, with model and balance on the device and equal in all processes."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.fabric import Fabric

from garnish.balancing.balancing import Balance
from garnish.checking.finite import not_finite
from garnish.errors import OptionError
from garnish.model.model import Model
from garnish.tasks.task import Task
from garnish.training.processes import start_alike
from garnish.training.step import TrainingStep
from garnish.training.train_options import TrainOptions


def start_placed(
    model: Model, tasks: Mapping[str, Task], balance: Balance, options: TrainOptions, fabric: Fabric
) -> TrainingStep:
    """Move the model to its device and make the training step; all ranks start from the first one's tensors.

    Raises:
        OptionError: nothing to train, a tensor that is not finite, or backbones that differ between processes.
    """
    if not model.trained_parameters():
        raise OptionError("train: every task of the model is frozen, so there is nothing to train; add a task")
    if odd := not_finite(model.all_tensors()):
        raise OptionError(f"train: the model's {odd}, so nothing can be learnt; build or load it again")
    model.to(fabric.device)
    balance.to(fabric.device)
    model.check_sites()
    step = TrainingStep(model, tasks, balance, options, fabric)
    start_alike(model.backbone, [*step.trained.values(), *step.buffers().values()], fabric)
    return step
