"""``losses``: the tasks' losses of a batch, for a loop of one's own.

Shape letters: B pictures of a batch, n of them that a task was run for, K that have labels of it, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from garnish.checking.arguments import checked
from garnish.data.dataset import Batch
from garnish.errors import OptionError, shown, suggest
from garnish.model.model import Model
from garnish.tasks.task import Task


@checked
def losses(model: Model, outputs: Mapping[str, Tensor], targets: Batch | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The loss of each task, as :func:`garnish.fit` computes it, for a loop of your own.

    Each is the task's own loss (its class weights, Dice, …) over all labelled pixels of the batch together; pixels
    without a label do not count. Of a batch, a task of which no picture has a label map is left out; one whose maps
    have no labelled pixel gives 0. ``Task.weight`` is not in it: it is what a balance multiplies,
    ``gn.Fixed().build(model.tasks)(found)`` being the sum that ``fit`` minimises by default.

    Args:
        model: whose tasks they are; their names, losses and options are all that is used of it.
        outputs: task → (n, C, H, W) raw output, of ``model(images, …)`` or of a decoder of your own; tasks that are
            left out have no loss here. Of a batch, n is either all its pictures, or those with labels of the task.
        targets: a batch of :func:`garnish.collate`, some of whose pictures may lack labels of some tasks; or task →
            (n, …) labels of every output: (n, H, W) int64 ids of classes, 255 where there is no label; (n, 1, H, W)
            float32 metres, 0 or NaN; (n, 3, H, W) unit vectors, 0; (n, 1, H, W) float32 of 0, 1 and 255. Labels of
            tasks without an output are not looked at.

    Returns:
        Task → () loss, in the order of the outputs, without tasks of which no picture of the batch has a label map,
        so perhaps empty, which no balance takes: skip such a step. Of several processes each has its own; ``fit``
        normalises over the labels of all.

    Raises:
        OptionError: an unknown task, labels that are missing, or numbers of pictures or pixels that differ.

    >>> import garnish as gn, torch
    >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"depth": gn.Depth(max_metres=10)})
    >>> images, metres = torch.zeros(2, 3, 64, 64), torch.full((2, 1, 64, 64), 3.0)
    >>> found = gn.losses(model, model(images), {"depth": metres})
    >>> list(found), found["depth"].shape
    (['depth'], torch.Size([]))
    """
    kept: dict[str, Tensor] = {}
    labels = targets.targets if isinstance(targets, Batch) else targets
    for name, out in outputs.items():
        if name not in model.tasks:
            raise OptionError(f"losses: outputs: no task {shown(name)}{suggest(name, model.tasks)}")
        if name in labels:
            kept[name] = _labelled(name, out, targets)
            _check(name, kept[name], labels[name], model.tasks[name])
        elif not isinstance(targets, Batch):
            raise OptionError(f"losses: targets: none of task {name!r}; give its labels, or leave its output out")
    return task_losses(model.tasks, kept, labels)


def task_losses(
    tasks: Mapping[str, Task], outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """() loss of each output over its labels, by task."""
    return {name: tasks[name].loss(tasks[name].sums(out, targets[name])) for name, out in outputs.items()}


def _labelled(name: str, out: Tensor, targets: Batch | Mapping[str, Tensor]) -> Tensor:
    """The rows of an output whose pictures have labels of the task."""
    if not isinstance(targets, Batch) or out.ndim < 1 or out.shape[0] == len(targets.where[name]):
        return out
    if out.shape[0] != len(targets):
        raise OptionError(
            f"losses: task {name!r}: outputs of {out.shape[0]} pictures; the batch has {len(targets)},"
            f" {len(targets.where[name])} of them with labels: give outputs of either"
        )
    return out[targets.where[name]]


def _check(name: str, out: Tensor, target: Tensor, task: Task) -> None:
    """Raise OptionError where an output and its labels are not of the same pictures and pixels."""
    if out.ndim != 4 or out.shape[1] != task.channels:
        raise OptionError(
            f"losses: task {name!r}: its output is {tuple(out.shape)}; expected (n, {task.channels}, H, W)"
        )
    if target.shape[0] != out.shape[0] or target.shape[-2:] != out.shape[-2:]:
        raise OptionError(
            f"losses: task {name!r}: labels are {tuple(target.shape)}, the output {tuple(out.shape)}; give both of the"
            " same pictures and size (model.at_picture_size brings what a decoder made to the pictures' own)"
        )
