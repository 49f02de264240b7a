"""The module that is exported: pictures in, the raw outputs of some tasks out, with all that can be folded folded in.

Shape letters: N pictures, H W pixels, C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from garnish.backbones.weights import is_non_commercial
from garnish.checking.finite import not_finite
from garnish.engine.folding import fold_possible
from garnish.errors import GarnishError, OptionError, shown, suggest
from garnish.model.decoders import Decoder, needed
from garnish.model.model import Model
from garnish.model.served import Addition
from garnish.output import logger

_log = logger(__name__)


@final
class Deployed(nn.Module):
    """A model as a function of pictures alone.

    Args:
        model: in evaluation mode.
        tasks: whose outputs are returned, in this order.
    """

    def __init__(self, model: Model, tasks: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.tasks = tuple(tasks)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) pictures as ``Model.forward`` takes them → of each task (N, channels, H, W) float32."""
        asked = None if set(self.tasks) == set(self.model.tasks) else list(self.tasks)
        found = self.model(image, asked)
        return tuple(found[task] for task in self.tasks)


def chosen_tasks(model: Model, tasks: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks to export, in the order of the model.

    Raises:
        OptionError: an unknown task, none, or a model without tasks.
    """
    for task in tasks or ():
        if task not in model.tasks:
            raise OptionError(f"export: unknown task {shown(task)}{suggest(task, model.tasks)}")
    found = tuple(task for task in model.tasks if tasks is None or task in tasks)
    if not found:
        raise OptionError("export: there is no task to export; name some, or leave tasks out for all")
    return found


def plain_copy(model: Model) -> Model:
    """A copy on the CPU in float32 and in evaluation mode, without gradients: what an exported file is compared with.

    Raises:
        OptionError: a compiled model, whose graphs cannot be copied.
    """
    if model.is_compiled:
        raise OptionError("export: the model is compiled; save it, and export the bundle")
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(False)


def usable_copy(given: Model) -> Model:
    """What an export is made of and compared with: a :func:`plain_copy`; the licence of its weights is told.

    Raises:
        GarnishError: a tensor is not finite. OptionError: a compiled model.
    """
    found = plain_copy(given)
    if odd := not_finite(found.all_tensors()):
        raise GarnishError(f"export: the model's {odd}; train it again, or take a model that was saved before")
    licence = found.backbone.licence
    if is_non_commercial(licence):
        _log.warning("the weights of %s are non-commercial (%s), and so is the export", given.backbone.name, licence)
    return found


def folded_copy(model: Model, tasks: Sequence[str]) -> Model:
    """A model with the same outputs for ``tasks``, whose adapters are part of the trunk's weights where possible.

    It is possible where the tasks share one owner; adapters of several owners stay adapters, since each would need a
    trunk of its own.

    Args:
        model: of :func:`usable_copy`; unchanged, its tensors may be shared with the result.
        tasks: the tasks that will be run.
    """
    served = model.served
    owners = {served.owner_of[task].root for task in needed(served.decoders, tasks)}
    if len(owners) > 1:
        return model
    (owner,) = owners
    trunk, rest = fold_possible(model.backbone, owner)
    made = Model(trunk)
    kept: dict[str, Decoder] = {task: served.decoders[task] for task in owner.tasks}
    made.serve(Addition({task: served.tasks[task] for task in owner.tasks}, (rest,), kept))
    like: Tensor = model.mean  # type: ignore[assignment]
    return made.to(like.dtype).eval().requires_grad_(False)
