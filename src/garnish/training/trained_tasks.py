"""The tasks that a run trains, the ranking of its evaluations, and warnings about its labels."""

from __future__ import annotations

from garnish.data.augment import Augment, scale_of
from garnish.data.dataset import Dataset
from garnish.errors import DataError, OptionError
from garnish.model.decoders import check_decodes
from garnish.model.model import Model
from garnish.tasks.task import Task
from garnish.training.best_step import Ranking
from garnish.training.evaluate import shared_tasks, told_of
from garnish.training.idle_options import refuse_without_val
from garnish.training.train_options import TrainOptions


def at_scale(model: Model, tasks: dict[str, Task], augment: Augment | None) -> dict[str, Task]:
    """The same tasks; how large the pictures of this run are is noted with their owners, for bundles and ``size``."""
    for task in tasks:
        model.owner_of(task).root.scale = scale_of(augment)
    return tasks


def trained_tasks(model: Model, train: Dataset) -> dict[str, Task]:
    """Task name → task, for the trained tasks.

    Raises:
        DataError: a task without labels in the training data. OptionError: one without a decoder.
    """
    shared = shared_tasks(model, train)
    wanted = {n: t for n, t in model.tasks.items() if n not in model.frozen_tasks}
    for name in wanted:
        if not (head := model.decoders.options[name]).decodes:
            raise OptionError(
                f"train: task {name!r} has no decoder ({type(head).__name__}), so fit cannot train it; train it in a"
                f" loop of your own with gn.losses (docs/your-loop.md), or freeze it: model.freeze([{name!r}])"
            )
        if name not in shared:
            raise DataError(
                f"{train.name}: has no labels of task {name!r} (its tasks: {', '.join(train.tasks)}); add them, or"
                f" leave the task out of the model (or freeze it: model.freeze([{name!r}]))"
            )
    return wanted


def ranking(model: Model, tasks: dict[str, Task], val: Dataset | None, options: TrainOptions) -> Ranking | None:
    """The ranking that chooses the best evaluation; None without validation data.

    Raises:
        OptionError, DataError: options that need validation data, or data without labels of a trained task, or with
        labels of a task that has no decoder.
    """
    if val is None:
        refuse_without_val(options)
        return None
    seen = shared_tasks(model, val)
    check_decodes(model.decoders.by_task, seen)  # frozen ones too are evaluated
    ranked = {name: task for name, task in tasks.items() if name in seen}
    if not ranked:
        raise DataError(f"{val.name}: has labels of no trained task ({', '.join(tasks)}); give other validation data")
    return Ranking(ranked, options.best_by)


def about_labels(model: Model, train: Dataset, val: Dataset | None) -> list[str]:
    """Warnings about the labels and the model's tasks, one line each."""
    found = told_of(model, train, shared_tasks(model, train), training=True)
    for name, task in model.tasks.items():
        if name not in model.frozen_tasks:
            found += [f"task {name!r}: {line}, so it does nothing here" for line in task.idle_options]
    if val is not None:
        found += told_of(model, val, shared_tasks(model, val), training=False)
    return found
